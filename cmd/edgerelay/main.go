// Command edgerelay is the webhook gateway: `serve` is a node, `demo`
// shows the main job, `bench` measures this build on this machine.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/goccy/go-yaml"
)

type cli struct {
	Config string `type:"existingfile" help:"YAML file; its keys are the flags' names."`

	Serve   serveCmd   `cmd:"" help:"Run a node."`
	Demo    demoCmd    `cmd:"" help:"Show the main job: a node, receivers, failures, retries, a replay."`
	Bench   benchCmd   `cmd:"" help:"Measure this build on this machine."`
	Version versionCmd `cmd:"" help:"Print the version."`

	BenchReceiver benchReceiverCmd `cmd:"" hidden:""`
	BenchLoad     benchLoadCmd     `cmd:"" hidden:""`
}

// usageError is a mistake in how the program was called: exit code 2.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

func usage(message string) error { return &usageError{message} }

func main() { os.Exit(run(os.Args[1:])) }

// run is main with its exit code: 0 done, 1 failed, 2 bad usage.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var c cli
	resolver, err := configFile(args)
	if err != nil {
		return complain(err)
	}
	exit := -1
	parser, err := kong.New(&c, kong.Name("edgerelay"), kong.Description("A self-hosted webhook gateway."), kong.DefaultEnvars("EDGERELAY"),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.Exit(func(code int) { exit = code }), kong.Resolvers(resolver...))
	if err != nil {
		return complain(err)
	}
	k, err := parser.Parse(args)
	if exit >= 0 {
		return exit // --help
	}
	if err != nil {
		return complain(usage(err.Error()))
	}
	if err := k.Run(); err != nil {
		return complain(err)
	}
	return 0
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "edgerelay:", strings.ReplaceAll(err.Error(), "\n", "; "))
	var u *usageError
	if errors.As(err, &u) {
		fmt.Fprintln(os.Stderr, "edgerelay: see edgerelay --help")
		return 2
	}
	return 1
}

// configFile reads --config before the flags are parsed: flags and the
// environment win over it. An unknown key is a mistake, not a wish.
func configFile(args []string) ([]kong.Resolver, error) {
	path := os.Getenv("EDGERELAY_CONFIG")
	for i, a := range args {
		if v, ok := strings.CutPrefix(a, "--config="); ok {
			path = v
		} else if a == "--config" && i+1 < len(args) {
			path = args[i+1]
		}
	}
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, usage("read --config: " + err.Error())
	}
	values := map[string]any{}
	if err := yaml.Unmarshal(b, &values); err != nil {
		return nil, usage("--config " + path + " is not YAML: " + err.Error())
	}
	known := map[string]bool{}
	model, err := kong.New(&cli{})
	if err != nil {
		return nil, err
	}
	for _, command := range model.Model.Children {
		for _, f := range command.Flags {
			known[f.Name] = true
		}
	}
	for key := range values {
		if !known[key] {
			return nil, usage("--config " + path + ": there is no flag " + key)
		}
	}
	return []kong.Resolver{kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, f *kong.Flag) (any, error) {
		v, ok := values[f.Name]
		if !ok || os.Getenv("EDGERELAY_"+strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))) != "" {
			return nil, nil
		}
		return fmt.Sprint(v), nil
	})}, nil
}

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run() error {
	_, err := fmt.Println("edgerelay", version())
	return err
}

// version is the module's, or the commit that was built.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v, at := info.Main.Version, ""
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			at = s.Value[:12]
		}
	}
	if v == "" || v == "(devel)" {
		v = "devel"
	}
	return strings.TrimSpace(v + " " + at)
}
