package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/omnisales/edgerelay/cluster"
	"github.com/omnisales/edgerelay/relay"
	"github.com/omnisales/edgerelay/relay/access"
	"github.com/omnisales/edgerelay/relay/api"
	"github.com/omnisales/edgerelay/relay/catalogue"
	"github.com/omnisales/edgerelay/relay/deliver"
	"github.com/omnisales/edgerelay/relay/deliver/wire"
	"github.com/omnisales/edgerelay/relay/destination"
	"github.com/omnisales/edgerelay/relay/intake"
	"github.com/omnisales/edgerelay/relay/registry"
	"github.com/omnisales/edgerelay/relay/replica"
	"github.com/omnisales/edgerelay/relay/state"
)

// serveCmd is a node. Each flag is also an environment variable (EDGERELAY_…)
// and a key of the --config file.
type serveCmd struct {
	DataDir           string        `default:"./data" help:"Where everything is kept."`
	HTTPAddr          string        `name:"http-addr" default:"127.0.0.1:8080" help:"Where the API listens. Beyond loopback it needs --admin-key-file."`
	NodeID            string        `default:"node-1" help:"This node's name, in logs and attempts."`
	AdminKeyFile      string        `type:"path" help:"File with the admin key (16 bytes or more); without it the API is open, on loopback only."`
	TLSCert           string        `name:"tls-cert" type:"path" help:"Certificate (PEM) of the API."`
	TLSKey            string        `name:"tls-key" type:"path" help:"Its private key (PEM)."`
	AllowDestinations string        `help:"Private addresses that webhooks may reach: CIDR,…"`
	RequireHTTPS      bool          `name:"require-https" help:"Refuse webhook URLs that are not https."`
	Retention         retention     `default:"7d" help:"How long events, attempts and dead letters are kept: 7d, 36h."`
	RetentionBytes    int64         `help:"Evidence and settled bodies go early above this size of the data. Default: 60% of the disk."`
	MaxEventBytes     int           `default:"98304" help:"Largest body of an event, up to 1048576."`
	StrictNumbers     bool          `help:"Refuse numbers that a double cannot hold, instead of warning."`
	LogFormat         string        `enum:"text,json" default:"text" help:"text or json."`
	LogLevel          slog.Level    `default:"info" help:"debug, info, warn or error."`
	DebugAddr         string        `help:"Where profiles are served (net/http/pprof); loopback only."`
	MaxInFlight       int           `default:"1024" help:"Attempts under way at once, over all webhooks."`
	EvidenceBytes     int           `default:"4096" help:"Evidence kept of successful attempts, bytes a second and webhook; failures are always kept."`
	DrainTimeout      time.Duration `default:"10s" help:"How long a stop waits for attempts under way."`
}

// Run starts a node and stops it when ctx ends. The steps are in the order in
// which each needs the one before; they are undone in reverse.
func (c *serveCmd) Run(ctx context.Context) error {
	log := c.logger()
	if err := c.check(); err != nil {
		return err
	}
	adminKey, err := c.adminKey()
	if err != nil {
		return err
	}
	policy, err := c.policy(adminKey)
	if err != nil {
		return err
	}
	// Blocking syncs hold a P each: with as many as a small machine has
	// cores, a sync would stop everything else.
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(8, runtime.NumCPU()))
	}
	if c.DebugAddr != "" {
		stop, err := serveDebug(c.DebugAddr, log)
		if err != nil {
			return err
		}
		defer stop()
	}
	// Listening comes first: an address in use is the likeliest mistake,
	// and is told before anything is written.
	listener, err := c.listen()
	if err != nil {
		return err
	}
	defer listener.Close()
	node, err := cluster.Open(cluster.Options{Dir: c.DataDir, NodeID: c.NodeID, Merge: state.MergeCounters, Logger: log})
	if err != nil {
		return fmt.Errorf("open data directory %s: %w", c.DataDir, err)
	}
	defer node.Close()
	keyring, err := openKeyring(filepath.Join(c.DataDir, "secret.key"))
	if err != nil {
		return err
	}
	webhooks := registry.New()
	client := wire.New(wire.Options{Policy: policy})
	// Deliveries begin before replica.Open returns.
	var groups *replica.Replica
	opened := make(chan struct{})
	engine := deliver.New(deliver.Options{
		Registry: webhooks, Keys: keyring, AAD: access.AAD, Client: client, NodeID: c.NodeID, MaxInFlight: c.MaxInFlight,
		EvidenceBytesPerSecond: c.EvidenceBytes, Drain: c.DrainTimeout, Logger: log, Now: time.Now,
		Disable: func(ordinal uint32, reason string) {
			if <-opened; groups != nil {
				disable(ctx, groups, webhooks, ordinal, reason, log)
			}
		},
	})
	defer func() {
		client.Close()
		engine.Close()
	}()
	groups, err = replica.Open(replica.Options{
		Node: node, Registry: webhooks, Retention: time.Duration(c.Retention), RetentionBytes: c.retentionBytes(),
		FreeDisk: func() (uint64, uint64, error) { return diskSpace(c.DataDir) }, Logger: log, Now: time.Now,
		Lead: func(src replica.Source, term uint64) replica.Dispatcher { return engine.Lead(src, term) },
	})
	close(opened)
	if err != nil {
		return err
	}
	defer groups.Close()
	accepting := intake.New(intake.Options{
		Registry: webhooks, Acceptor: groups, MaxEventBytes: c.MaxEventBytes, StrictNumbers: c.StrictNumbers, Now: time.Now, Random: rand.Reader,
		KnownType: func(name string) bool { _, ok := catalogue.Lookup(name); return ok },
	})
	server := api.New(api.Options{
		Meta: groups, Partitions: groups, Health: groups, Tester: tester{engine, groups}, Registry: webhooks, Intake: accepting, Keyring: keyring,
		Guard: access.NewGuard(adminKey), Policy: policy, RequireHTTPS: c.RequireHTTPS, Metrics: metrics(node, engine),
		Logger: log, Now: time.Now, Random: rand.Reader, MaxEventBytes: c.MaxEventBytes,
	})
	// Each start begins with an election, a fraction of a second for one node.
	// Whoever connects meanwhile waits in the listener's queue instead of
	// being told 503; a node that finds no majority serves that 503 after all.
	electing, stopWaiting := context.WithTimeout(ctx, 2*time.Second)
	_ = until(electing, func() (bool, error) { return groups.Ready() == nil, nil }) // else /readyz says what is missing
	stopWaiting()
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	log.Info("edgerelay is up", "api", c.url(listener), "data", c.DataDir, "node", c.NodeID, "version", version())
	select {
	case err := <-failed:
		return fmt.Errorf("serve the API: %w", err)
	case <-ctx.Done():
	}
	log.Info("stopping: attempts under way are finished first")
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.DrainTimeout)
	defer cancel()
	return server.Shutdown(drain)
}

// check refuses what cannot work before anything is started.
func (c *serveCmd) check() error {
	if c.MaxEventBytes < 1024 || c.MaxEventBytes > 1<<20 {
		return usage("--max-event-bytes must be from 1024 to 1048576")
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return usage("--tls-cert and --tls-key go together")
	}
	if c.Retention < retention(time.Hour) {
		return usage("--retention must be an hour or more")
	}
	if c.AdminKeyFile == "" && !loopback(c.HTTPAddr) {
		return usage("--http-addr " + c.HTTPAddr + " is reachable from outside: make a key first (head -c 32 /dev/urandom | base64 > admin.key) and give it with --admin-key-file admin.key")
	}
	return nil
}

func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (c *serveCmd) adminKey() (string, error) {
	if c.AdminKeyFile == "" {
		return "", nil
	}
	b, err := os.ReadFile(c.AdminKeyFile)
	if err != nil {
		return "", fmt.Errorf("read --admin-key-file: %w", err)
	}
	key := strings.TrimSpace(string(b))
	if len(key) < 16 {
		return "", usage("--admin-key-file must hold a key of 16 characters or more")
	}
	return key, nil
}

// policy says which addresses may be dialled: loopback only while nobody but
// this machine can create webhooks and the operator said nothing else.
func (c *serveCmd) policy(adminKey string) (destination.Policy, error) {
	if c.AllowDestinations == "" {
		return destination.Policy{AllowLoopback: adminKey == ""}, nil
	}
	allow, err := destination.ParseAllow(c.AllowDestinations)
	if err != nil {
		return destination.Policy{}, usage("--allow-destinations: " + err.Error())
	}
	return destination.Policy{Allow: allow}, nil
}

func (c *serveCmd) listen() (net.Listener, error) {
	l, err := net.Listen("tcp", c.HTTPAddr)
	if err != nil {
		return nil, fmt.Errorf("listen on --http-addr: %w", err)
	}
	if c.TLSCert == "" {
		return l, nil
	}
	cert, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("load --tls-cert and --tls-key: %w", err)
	}
	return tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}), nil
}

func (c *serveCmd) url(l net.Listener) string {
	if c.TLSCert != "" {
		return "https://" + l.Addr().String()
	}
	return "http://" + l.Addr().String()
}

func (c *serveCmd) logger() *slog.Logger {
	options := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}

func (c *serveCmd) retentionBytes() int64 {
	if c.RetentionBytes > 0 {
		return c.RetentionBytes
	}
	_, total, err := diskSpace(c.DataDir)
	if err != nil {
		return 0
	}
	return int64(total / 10 * 6)
}

// tester runs a test event's attempt and records it.
type tester struct {
	engine *deliver.Engine
	groups *replica.Replica
}

func (t tester) Test(ctx context.Context, h *relay.Webhook, eventType, eventID string, data []byte) (*relay.Attempt, *relay.Evidence, error) {
	o, evidence, err := t.engine.Test(ctx, h, eventType, eventID, data)
	if err != nil {
		return nil, nil, err
	}
	if err := t.groups.LogTest(ctx, o); err != nil {
		return nil, nil, err
	}
	return &relay.Attempt{
		Webhook: o.Webhook, EventID: o.EventID, EventType: o.EventType, Attempt: o.Attempt, State: o.State, StatusCode: o.StatusCode, Error: o.Error,
		StartedAt: o.StartedAt, DurationUS: o.DurationUS, ResponseBytes: o.ResponseBytes, Full: true, Test: true, Node: o.Node,
	}, evidence, nil
}

// disable switches a webhook off for good, unless it was changed meanwhile so
// that it is off already.
func disable(ctx context.Context, groups *replica.Replica, webhooks *registry.Registry, ordinal uint32, reason string, log *slog.Logger) {
	for range 5 {
		h := webhooks.Webhook(ordinal)
		if h == nil || !h.Matches() {
			return
		}
		off := *h
		off.DisabledReason = reason
		off.UpdatedAt = time.Now().Unix()
		_, err := groups.PutWebhook(ctx, &off)
		if err == nil {
			log.Warn("webhook disabled", "webhook", h.ID, "reason", reason)
			return
		}
		if e, ok := relay.AsError(err); !ok || e.Code != relay.CodeConflict {
			log.Error("disable webhook", "webhook", h.ID, "error", err)
			return
		}
	}
}

// openKeyring reads the key that seals secrets, and makes it on first start.
func openKeyring(path string) (*access.Keyring, error) {
	var key [32]byte
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if _, err := rand.Read(key[:]); err != nil {
			return nil, err
		}
		if err := writeSynced(path, key[:]); err != nil {
			return nil, fmt.Errorf("make the key of secrets: %w", err)
		}
		return access.NewKeyring(key)
	case err != nil:
		return nil, fmt.Errorf("read the key of secrets: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others: chmod 600 %s", path, path)
	}
	if copy(key[:], b) != len(key) || len(b) != len(key) {
		return nil, fmt.Errorf("%s is not a key of 32 bytes: restore it from your backup", path)
	}
	return access.NewKeyring(key)
}
