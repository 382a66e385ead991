package cluster

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// flusher writes the state of all groups to disk together and lets their logs
// be cut: by bytes of log or by time, for a flush is of the whole database.
type flusher struct {
	node  *Node
	bytes atomic.Int64  // of log since the last round
	kick  chan struct{} // more than FlushBytes
	quit  chan struct{}
	once  sync.Once
	wg    sync.WaitGroup
	done  atomic.Int64 // rounds

	mu      sync.Mutex
	running *round
	next    *round
}

// round is one flush that several groups wait for.
type round struct {
	done chan struct{}
	err  error
}

func startFlusher(n *Node) *flusher {
	f := &flusher{node: n, kick: make(chan struct{}, 1), quit: make(chan struct{})}
	f.wg.Go(f.run)
	return f
}

func (f *flusher) stop() {
	f.once.Do(func() { close(f.quit) })
	f.wg.Wait()
}

// wrote counts bytes of log.
func (f *flusher) wrote(n int) {
	if f.bytes.Add(int64(n)) >= f.node.opt.FlushBytes {
		select {
		case f.kick <- struct{}{}:
		default:
		}
	}
}

func (f *flusher) run() {
	tick := time.NewTicker(f.node.opt.FlushInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if f.bytes.Load() == 0 {
				continue
			}
		case <-f.kick:
			if f.bytes.Load() < f.node.opt.FlushBytes {
				continue
			}
		case <-f.quit:
			return
		}
		f.bytes.Store(0)
		f.snapshotAll()
		f.done.Add(1)
	}
}

// snapshotAll snapshots every group at the same time, so that they share a
// flush, or two.
func (f *flusher) snapshotAll() {
	f.node.mu.Lock()
	groups := append([]*Group(nil), f.node.groups...)
	f.node.mu.Unlock()
	var wg sync.WaitGroup
	for _, g := range groups {
		wg.Go(func() {
			if err := g.snapshot(); err != nil {
				f.node.opt.Logger.Warn("snapshot", "group", g.id, "error", err)
			}
		})
	}
	wg.Wait()
}

// snapshot flushes the group's state and cuts its log, but for a tail that is
// bounded in bytes where raft would count entries.
func (g *Group) snapshot() error {
	if g.applied.Load() <= g.snapshots.applied() {
		return nil
	}
	c := g.raft.ReloadableConfig()
	c.TrailingLogs = g.logs.keep()
	if err := g.raft.ReloadConfig(c); err != nil {
		return fmt.Errorf("set trailing logs: %w", err)
	}
	err := g.raft.Snapshot().Error()
	if errors.Is(err, raft.ErrNothingNewToSnapshot) || errors.Is(err, raft.ErrRaftShutdown) {
		return nil
	}
	return err
}

// flush returns when everything written to the state before the call is on
// disk. Callers that come while one runs share the next.
func (f *flusher) flush() error {
	f.mu.Lock()
	if f.running == nil {
		r := &round{done: make(chan struct{})}
		f.running = r
		f.mu.Unlock()
		f.lead(r)
		return r.err
	}
	if f.next == nil {
		r := &round{done: make(chan struct{})}
		f.next = r
		before := f.running
		f.mu.Unlock()
		<-before.done
		f.lead(r)
		return r.err
	}
	r := f.next
	f.mu.Unlock()
	<-r.done
	return r.err
}

func (f *flusher) lead(r *round) {
	f.mu.Lock()
	if f.next == r {
		f.running, f.next = r, nil
	}
	f.mu.Unlock()
	if r.err = f.node.state.Flush(); r.err != nil {
		r.err = fmt.Errorf("flush state: %w", r.err)
		f.node.opt.Fatal(r.err)
	}
	f.mu.Lock()
	if f.running == r {
		f.running = nil
	}
	f.mu.Unlock()
	close(r.done)
}
