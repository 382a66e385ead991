package cluster

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// What a proposal may come to.
var (
	// ErrOverloaded: nothing was proposed, too much is pending.
	ErrOverloaded = errors.New("too many proposals are pending")
	// ErrNotLeader: nothing was proposed, this node does not lead the group.
	ErrNotLeader = errors.New("this node does not lead the group")
	// ErrOutcomeUnknown: it may or may not be committed later.
	ErrOutcomeUnknown = errors.New("it is not known whether the proposal was committed")
)

// Leadership is what Watch tells.
type Leadership struct {
	Leader bool
	Term   uint64
}

// Group is this node's replica of a raft group.
type Group struct {
	id        GroupID
	node      *Node
	machine   Machine
	raft      *raft.Raft
	logs      *logStore
	snapshots *snapshotStore
	applied   atomic.Uint64
	pending   atomic.Int64 // bytes
	broken    error        // set and read by raft's apply goroutine

	notify   chan bool
	stop     chan struct{}
	stopping sync.Once
	wg       sync.WaitGroup

	mu       sync.Mutex
	lead     Leadership
	watchers []func(Leadership)
}

// StartGroup opens a group, or bootstraps it with this node as its only
// voter. The machine's state is what the disk holds; entries after it are
// applied as raft finds them committed.
func (n *Node) StartGroup(id GroupID, m Machine) (*Group, error) {
	g := &Group{id: id, node: n, machine: m, notify: make(chan bool, 16), stop: make(chan struct{})}
	var err error
	if g.snapshots, err = openSnapshots(g); err != nil {
		return nil, fmt.Errorf("open snapshots of group %d: %w", id, err)
	}
	if err := g.reload(); err != nil {
		return nil, err
	}
	if at := g.snapshots.applied(); g.applied.Load() < at {
		return nil, fmt.Errorf("group %d: the state stands at entry %d, but its log was cut at %d: restore the data directory from a backup", id, g.applied.Load(), at)
	}
	g.logs, err = openLogStore(&logStore{group: id, db: n.log, fatal: n.opt.Fatal, cut: g.snapshots.index, written: n.flusher.wrote})
	if err != nil {
		return nil, fmt.Errorf("open log of group %d: %w", id, err)
	}
	if err := g.startRaft(); err != nil {
		return nil, fmt.Errorf("start raft of group %d: %w", id, err)
	}
	g.wg.Go(g.watchLeadership)
	n.mu.Lock()
	n.groups = append(n.groups, g)
	n.mu.Unlock()
	return g, nil
}

// reload reads how far the state is and tells the machine of it.
func (g *Group) reload() error {
	a, err := readApplied(g.View())
	if err != nil {
		return err
	}
	g.applied.Store(a.index)
	if g.raft == nil {
		return nil
	}
	return g.machine.Restored()
}

func (g *Group) startRaft() error {
	address, transport := raft.NewInmemTransport(raft.ServerAddress(g.node.identity.server))
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(g.node.identity.server)
	c.Logger = raftLogger(g.node.opt.Logger, g.id)
	c.NotifyCh = g.notify
	c.NoLegacyTelemetry = true
	c.NoSnapshotRestoreOnStart = true // the state restores itself: DESIGN.md
	c.BatchApplyCh = true
	c.MaxAppendEntries = 64
	c.SnapshotThreshold = 1 << 62 // the flusher decides
	c.SnapshotInterval = 24 * time.Hour
	c.TrailingLogs = 0
	c.CommitTimeout = 200 * time.Millisecond
	existing, err := raft.HasExistingState(g.logs, g.logs, g.snapshots)
	if err != nil {
		return err
	}
	servers := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: c.LocalID, Address: address}}}
	// A single voter has nobody to wait for.
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = 100*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond
	if !existing {
		if err := raft.BootstrapCluster(c, g.logs, g.logs, g.snapshots, transport, servers); err != nil {
			return err
		}
	}
	g.raft, err = raft.NewRaft(c, (*fsm)(g), g.logs, g.logs, g.snapshots, transport)
	return err
}

// shutdown ends raft and the watching.
func (g *Group) shutdown() {
	g.stopping.Do(func() {
		if err := g.raft.Shutdown().Error(); err != nil {
			g.node.opt.Logger.Error("shut down raft", "group", g.id, "error", err)
		}
		close(g.stop)
		g.wg.Wait()
	})
}

// Propose offers an entry to the group. It does not wait for the disk.
func (g *Group) Propose(data []byte) *Proposal {
	size := int64(len(data)) + 256
	if g.pending.Add(size) > g.node.opt.MaxPendingBytes {
		g.pending.Add(-size)
		return &Proposal{err: ErrOverloaded}
	}
	return &Proposal{group: g, size: size, future: g.raft.Apply(data, time.Second)}
}

// Proposal is an entry on its way.
type Proposal struct {
	group  *Group
	size   int64
	future raft.ApplyFuture
	once   sync.Once
	result any
	err    error
}

// Wait returns what Machine.Apply returned for the entry. It must be called
// for every proposal, by any goroutine.
func (p *Proposal) Wait() (any, error) {
	p.once.Do(func() {
		if p.future == nil {
			return
		}
		p.err = meaning(p.future.Error())
		p.group.pending.Add(-p.size)
		if p.err != nil {
			return
		}
		p.result = p.future.Response()
		if _, broken := p.result.(error); broken || p.result == nil {
			p.result, p.err = nil, ErrOutcomeUnknown
		}
	})
	return p.result, p.err
}

// Done is closed when Wait would not block.
func (p *Proposal) Done() <-chan struct{} {
	done := make(chan struct{})
	go func() { // ends with the proposal, at the latest when the group is shut down
		_, _ = p.Wait()
		close(done)
	}()
	return done
}

func meaning(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return ErrOverloaded
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return ErrNotLeader
	}
	return ErrOutcomeUnknown
}

// View reads the group's committed state as it is at each call.
func (g *Group) View() View { return View{g.id, g.node.state} }

// AppliedIndex is that of the last entry in the state.
func (g *Group) AppliedIndex() uint64 { return g.applied.Load() }

// Term is raft's.
func (g *Group) Term() uint64 { return g.raft.CurrentTerm() }

// IsLeader says whether this node leads the group, as far as it knows.
func (g *Group) IsLeader() bool { return g.raft.State() == raft.Leader }

// Usage estimates the bytes on disk of the state's keys lower <= key < upper.
func (g *Group) Usage(lower, upper []byte) (uint64, error) {
	v := g.View()
	return g.node.state.EstimateDiskUsage(v.key(nil, lower), v.key(nil, upper))
}

// Watch calls fn whenever leadership changes, and at once if this node leads.
// A leader is told only after everything committed before its term is applied
// here. Calls come one at a time.
func (g *Group) Watch(fn func(Leadership)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.watchers = append(g.watchers, fn)
	if g.lead.Leader {
		fn(g.lead)
	}
}

func (g *Group) watchLeadership() {
	for {
		select {
		case leads := <-g.notify:
			g.settle(leads)
		case <-g.stop:
			g.tell(Leadership{})
			return
		}
	}
}

func (g *Group) settle(leads bool) {
	if !leads {
		g.tell(Leadership{Term: g.raft.CurrentTerm()})
		return
	}
	if err := g.raft.Barrier(0).Error(); err != nil {
		return // leadership went again: the next notice says so
	}
	g.tell(Leadership{Leader: true, Term: g.raft.CurrentTerm()})
}

func (g *Group) tell(l Leadership) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.lead == l || !g.lead.Leader && !l.Leader {
		return
	}
	g.lead = l
	for _, fn := range g.watchers {
		fn(l)
	}
}
