//go:build since12

package main

import (
	"context"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

func gc(ctx context.Context, cni *libcni.CNIConfig, list *libcni.NetworkConfigList, valid []attachment) error {
	var stay []types.GCAttachment
	if valid != nil {
		stay = make([]types.GCAttachment, 0, len(valid))
	}
	for _, it := range valid {
		stay = append(stay, types.GCAttachment{ContainerID: it.Container, IfName: it.Ifname})
	}
	return cni.GCNetworkList(ctx, list, &libcni.GCArgs{ValidAttachments: stay})
}

func status(ctx context.Context, cni *libcni.CNIConfig, list *libcni.NetworkConfigList) error {
	return cni.GetStatusNetworkList(ctx, list)
}
