// A container runtime's network part and nothing else: one call of libcni's for each run.
//
// It reads a request from standard input and writes what came of it to standard output, both as JSON; it exits 1 where libcni gave an
// error. All that is between a runtime and a plugin is libcni's own: finding the list, capability arguments, results and their cache.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

// patience is how long all calls of plugins may take together.
const patience = time.Minute

type request struct {
	// What to do: add, check, del, cached, validate, gc or status.
	Verb string `json:"verb"`
	// Where lists are, and the name of the one that is meant.
	Folder  string `json:"folder"`
	Network string `json:"network"`
	// Where plugins are, and where results are kept.
	Path  []string `json:"path"`
	Cache string   `json:"cache"`

	Container    string                 `json:"container"`
	Netns        string                 `json:"netns"`
	Ifname       string                 `json:"ifname"`
	Args         [][2]string            `json:"args"`
	Capabilities map[string]interface{} `json:"capabilities"`
	// The attachments that are to stay, for gc: null is what a runtime sends that has none.
	Valid []attachment `json:"valid"`
}

type attachment struct {
	Container string `json:"container"`
	Ifname    string `json:"ifname"`
}

type answer struct {
	// Of add and cached.
	Result types.Result `json:"result,omitempty"`
	// Of validate.
	Capabilities []string `json:"capabilities,omitempty"`
	Error        *failure `json:"error,omitempty"`
}

// failure is an error of libcni's, with the plugin's own inside it, if it is one's.
type failure struct {
	Text    string `json:"text"`
	Code    uint   `json:"code,omitempty"`
	Msg     string `json:"msg,omitempty"`
	Details string `json:"details,omitempty"`
}

func main() {
	var it request
	if err := json.NewDecoder(os.Stdin).Decode(&it); err != nil {
		fmt.Fprintln(os.Stderr, "read the request:", err)
		os.Exit(2)
	}
	said, err := it.do()
	if err != nil {
		said.Error = &failure{Text: err.Error()}
		var plugins *types.Error
		if errors.As(err, &plugins) {
			said.Error.Code, said.Error.Msg, said.Error.Details = plugins.Code, plugins.Msg, plugins.Details
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(said); err != nil {
		fmt.Fprintln(os.Stderr, "write the answer:", err)
		os.Exit(2)
	}
	if said.Error != nil {
		os.Exit(1)
	}
}

func (it *request) do() (answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	list, err := libcni.LoadConfList(it.Folder, it.Network)
	if err != nil {
		return answer{}, err
	}
	cni := libcni.NewCNIConfigWithCacheDir(it.Path, it.Cache, nil)
	rt := &libcni.RuntimeConf{
		ContainerID:    it.Container,
		NetNS:          it.Netns,
		IfName:         it.Ifname,
		Args:           it.Args,
		CapabilityArgs: it.Capabilities,
	}
	var said answer
	switch it.Verb {
	case "add":
		said.Result, err = cni.AddNetworkList(ctx, list, rt)
	case "check":
		err = cni.CheckNetworkList(ctx, list, rt)
	case "del":
		err = cni.DelNetworkList(ctx, list, rt)
	case "cached":
		said.Result, err = cni.GetNetworkListCachedResult(list, rt)
	case "validate":
		said.Capabilities, err = cni.ValidateNetworkList(ctx, list)
	case "gc":
		err = gc(ctx, cni, list, it.Valid)
	case "status":
		err = status(ctx, cni, list)
	default:
		err = fmt.Errorf("there is no verb %q", it.Verb)
	}
	return said, err
}
