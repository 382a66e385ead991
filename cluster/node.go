// Package cluster runs raft groups over two Pebble databases a node: one for
// all groups' logs, synced at every write, and one for their state, without a
// write-ahead log of its own, since the raft log is its log. It knows nothing
// of webhooks: a Machine gives the meaning.
//
// What it guarantees: a proposal that is answered without error is on the
// disks of a majority and applied here; after a crash at any moment every
// such entry is there and applied exactly once; the log is never cut above
// what of the state is on disk. A failed write ends the process (Fatal).
// DESIGN.md tells how.
//
// Open starts the flusher, StartGroup a group's goroutines; Close ends both
// and waits for them.
package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Options of a Node. Dir, NodeID and Merge are required.
type Options struct {
	Dir    string
	FS     vfs.FS // the real one by default
	NodeID string
	// Merge appends the sum of two values to dst. It is part of the disk
	// format, must be associative and commutative, and never fails.
	Merge  func(dst, a, b []byte) []byte
	Logger *slog.Logger
	// Fatal is called when what is on disk can no longer be trusted to
	// follow: a failed write, or an entry that cannot be understood. By
	// default it ends the process.
	Fatal func(error)
	// FlushBytes of log, or FlushInterval, after which the state is flushed
	// and the log cut. 96 MiB and 60 s by default.
	FlushBytes    int64
	FlushInterval time.Duration
	// MaxPendingBytes bounds the proposals not yet answered, a group. 64 MiB
	// by default; above it Propose answers ErrOverloaded.
	MaxPendingBytes int64
	// HeartbeatTimeout is raft's, and its election timeout. A group whose
	// only voter is this node waits 100 ms.
	HeartbeatTimeout time.Duration
}

// Node is this process's replica of every group it was given.
type Node struct {
	opt      Options
	log      *pebble.DB
	state    *pebble.DB
	identity identity
	flusher  *flusher
	faults   faults

	mu     sync.Mutex
	groups []*Group
	closed bool
}

// faults take a safeguard out, so that the crash tests can show that they
// would notice. Nothing outside the tests sets them.
type faults struct{ noFlush, noIndexCheck bool }

const formatVersion = pebble.FormatValueSeparation

// Open opens or creates a node's databases.
func Open(opt Options) (*Node, error) { return open(opt, faults{}) }

func open(opt Options, f faults) (*Node, error) {
	setDefaults(&opt)
	n := &Node{opt: opt, faults: f}
	var err error
	if err := n.makeDirs(); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	if n.log, err = pebble.Open(opt.FS.PathJoin(opt.Dir, "log"), n.logOptions()); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if n.state, err = pebble.Open(opt.FS.PathJoin(opt.Dir, "state"), n.stateOptions()); err != nil {
		return nil, errors.Join(fmt.Errorf("open state: %w", err), n.log.Close())
	}
	if n.identity, err = identify(n.log, n.state, opt.NodeID); err != nil {
		return nil, errors.Join(err, n.state.Close(), n.log.Close())
	}
	n.flusher = startFlusher(n)
	return n, nil
}

// makeDirs makes the directories so that they are there after a power cut: a
// new entry is on disk when the directory that holds it is synced.
func (n *Node) makeDirs() error {
	fs := n.opt.FS
	if err := fs.MkdirAll(n.receivedDir(), 0o700); err != nil {
		return err
	}
	for _, dir := range []string{n.opt.Dir, fs.PathDir(n.opt.Dir)} {
		if dir == "" {
			dir = "."
		}
		d, err := fs.OpenDir(dir)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return err
		}
	}
	return nil
}

func setDefaults(opt *Options) {
	if opt.FS == nil {
		opt.FS = vfs.Default
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.Fatal == nil {
		opt.Fatal = func(err error) {
			opt.Logger.Error("stopping: the state on disk cannot follow", "error", err)
			os.Exit(1)
		}
	}
	if opt.FlushBytes == 0 {
		opt.FlushBytes = 96 << 20
	}
	if opt.FlushInterval == 0 {
		opt.FlushInterval = time.Minute
	}
	if opt.MaxPendingBytes == 0 {
		opt.MaxPendingBytes = 64 << 20
	}
	if opt.HeartbeatTimeout == 0 {
		opt.HeartbeatTimeout = time.Second
	}
}

// Close stops the groups and closes the databases. What of the state was not
// flushed is replayed from the log at the next start; Close flushes, so that
// there is nothing to replay.
func (n *Node) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	groups := n.groups
	n.mu.Unlock()
	n.flusher.stop()
	for _, g := range groups {
		g.shutdown()
	}
	return errors.Join(n.state.Flush(), n.state.Close(), n.log.Close())
}

// StoreID is the identity of the data directory, made when it was.
func (n *Node) StoreID() string { return n.identity.store }

// DiskUsage is the size of both databases in bytes.
func (n *Node) DiskUsage() int64 {
	return int64(n.log.Metrics().DiskSpaceUsage() + n.state.Metrics().DiskSpaceUsage())
}

// Metrics are a node's numbers for an operator.
type Metrics struct {
	LogBytes, StateBytes uint64 // on disk
	WALBytesWritten      uint64 // since the start
	CompactionDebt       uint64 // bytes that compaction still has to move
	Flushes              int64
	Groups               []GroupMetrics
}

// GroupMetrics are one group's.
type GroupMetrics struct {
	ID            GroupID
	Leader        bool
	Term, Applied uint64
	PendingBytes  int64
}

// Metrics reads the numbers of this moment.
func (n *Node) Metrics() Metrics {
	l, s := n.log.Metrics(), n.state.Metrics()
	m := Metrics{LogBytes: l.DiskSpaceUsage(), StateBytes: s.DiskSpaceUsage(), WALBytesWritten: l.WAL.BytesWritten,
		CompactionDebt: s.Compact.EstimatedDebt, Flushes: n.flusher.done.Load()}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, g := range n.groups {
		m.Groups = append(m.Groups, GroupMetrics{ID: g.id, Leader: g.IsLeader(), Term: g.Term(), Applied: g.AppliedIndex(), PendingBytes: g.pending.Load()})
	}
	return m
}

func (n *Node) logOptions() *pebble.Options {
	o := n.pebbleOptions()
	o.MemTableSize = 16 << 20
	o.CacheSize = 24 << 20 // see stateOptions; it is read at a start only
	// The log is cut soon after it is written: let it go before it is moved.
	o.L0CompactionThreshold = 8
	o.L0StopWritesThreshold = 64
	return o
}

func (n *Node) stateOptions() *pebble.Options {
	o := n.pebbleOptions()
	o.DisableWAL = true
	o.MemTableSize = 32 << 20
	// Pebble takes its memtables' bytes out of the cache: one in use and one
	// being flushed leave 32 MiB for blocks, filters among them.
	o.CacheSize = 96 << 20
	o.L0CompactionThreshold = 4
	o.L0StopWritesThreshold = 48
	o.Merger = n.merger()
	o.CompactionConcurrencyRange = func() (int, int) { return 1, 2 }
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10) // most ids looked up are new
	}
	return o
}

func (n *Node) pebbleOptions() *pebble.Options {
	return &pebble.Options{
		FS: n.opt.FS, FormatMajorVersion: formatVersion, Logger: pebbleLogger{n.opt.Logger},
		MemTableStopWritesThreshold: 4, MaxOpenFiles: 500,
		EventListener: &pebble.EventListener{BackgroundError: func(err error) { n.opt.Fatal(fmt.Errorf("write database: %w", err)) }},
	}
}
