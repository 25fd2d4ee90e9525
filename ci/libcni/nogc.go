//go:build !since12

package main

import (
	"context"
	"errors"

	"github.com/containernetworking/cni/libcni"
)

var errTooOld = errors.New("this libcni is from before GC and STATUS")

func gc(context.Context, *libcni.CNIConfig, *libcni.NetworkConfigList, []attachment) error {
	return errTooOld
}

func status(context.Context, *libcni.CNIConfig, *libcni.NetworkConfigList) error {
	return errTooOld
}
