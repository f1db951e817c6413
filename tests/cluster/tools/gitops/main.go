// gitops-health says what Argo CD, Flux and kstatus make of objects: JSON lines in, JSON lines out.
//
// The health check in Lua runs as in Argo CD (util/lua): gopher-lua with the same libraries. The expressions of the Flux
// Kustomization and kstatus are evaluated by their own libraries. A HelmRelease of Flux is read with its own types.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	helm "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/yaml"
)

type result struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

type answer struct {
	Argo    result `json:"argo"`
	Flux    result `json:"flux"`
	Kstatus result `json:"kstatus"`
}

func main() {
	health := flag.String("lua", "", "the health check of Argo CD")
	kustomization := flag.String("kustomization", "", "the Kustomization of Flux with the healthCheckExprs")
	release := flag.String("helmrelease", "", "a HelmRelease of Flux, which may hold nothing that is unknown; looks at nothing else")
	flag.Parse()
	var err error
	if *release != "" {
		err = checkRelease(*release)
	} else {
		err = run(*health, *kustomization)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(health, kustomization string) error {
	script, err := os.ReadFile(health)
	if err != nil {
		return err
	}
	flux, err := fluxReader(kustomization)
	if err != nil {
		return err
	}
	lines, out := bufio.NewReader(os.Stdin), json.NewEncoder(os.Stdout)
	decoder := json.NewDecoder(lines)
	for decoder.More() {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(object); err != nil {
			return err
		}
		argo, err := argoHealth(object.Object, string(script))
		if err != nil {
			return err
		}
		said, err := status.Compute(object)
		if err != nil {
			return err
		}
		found := answer{Argo: argo, Flux: flux(object), Kstatus: result{said.Status.String(), said.Message}}
		if err := out.Encode(found); err != nil {
			return err
		}
	}
	return nil
}

func checkRelease(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return yaml.UnmarshalStrict(text, &helm.HelmRelease{})
}

func argoHealth(object map[string]any, script string) (result, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage,
		lua.BaseLibName: lua.OpenBase,
		lua.TabLibName:  lua.OpenTable,
	} {
		if err := state.CallByParam(lua.P{Fn: state.NewFunction(open), Protect: true}, lua.LString(name)); err != nil {
			return result{}, err
		}
	}
	limited, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	state.SetContext(limited)
	state.SetGlobal("obj", value(state, object))
	if err := state.DoString(script); err != nil {
		return result{}, err
	}
	table, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return result{}, errors.New("the health check returns no table")
	}
	return result{lua.LVAsString(table.RawGetString("status")), lua.LVAsString(table.RawGetString("message"))}, nil
}

func value(state *lua.LState, from any) lua.LValue {
	switch from := from.(type) {
	case map[string]any:
		table := state.NewTable()
		for key, part := range from {
			table.RawSetString(key, value(state, part))
		}
		return table
	case []any:
		table := state.NewTable()
		for _, part := range from {
			table.Append(value(state, part))
		}
		return table
	case string:
		return lua.LString(from)
	case bool:
		return lua.LBool(from)
	case int64:
		return lua.LNumber(from)
	case float64:
		return lua.LNumber(from)
	}
	return lua.LNil
}

func fluxReader(path string) (func(*unstructured.Unstructured) result, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var kustomization struct {
		Spec struct {
			HealthCheckExprs []kustomize.CustomHealthCheck `json:"healthCheckExprs"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(text, &kustomization); err != nil {
		return nil, err
	}
	construct, err := cel.NewStatusReader(kustomization.Spec.HealthCheckExprs)
	if err != nil {
		return nil, err
	}
	reader := construct(meta.NewDefaultRESTMapper(nil))
	return func(object *unstructured.Unstructured) result {
		found, err := reader.ReadStatusForObject(context.Background(), nil, object)
		if err == nil {
			err = found.Error
		}
		if err != nil {
			return result{"Unknown", err.Error()}
		}
		return result{found.Status.String(), found.Message}
	}, nil
}
