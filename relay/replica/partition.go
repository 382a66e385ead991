package replica

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/omnisales/edgerelay/cluster"
	"github.com/omnisales/edgerelay/relay/state"
)

// partition is this node's replica of a partition group: it gathers publishes
// and outcomes into entries and feeds the dispatcher while it leads.
type partition struct {
	id      cluster.GroupID
	replica *Replica
	group   *cluster.Group
	machine state.Partition

	publishes chan *publish
	proposed  chan []flight
	term      atomic.Uint64 // the term in which it leads and dispatches; 0: it does not

	// applying is held from Apply to the end of Applied, so that a
	// dispatcher starts between two entries: its state and what it is shown
	// from then on have no gap and no overlap.
	applying   sync.Mutex
	dispatcher Dispatcher
	source     *source

	stopping sync.Once
	stop     chan struct{}
	wg       sync.WaitGroup
}

func openPartition(r *Replica, id cluster.GroupID) (*partition, error) {
	p := &partition{id: id, replica: r, publishes: make(chan *publish, 4096), proposed: make(chan []flight, proposalsInFlight), stop: make(chan struct{})}
	p.applying.Lock()
	group, err := r.opt.Node.StartGroup(id, (*partitionMachine)(p))
	p.group = group
	p.applying.Unlock()
	if err != nil {
		return nil, fmt.Errorf("start partition %d: %w", id, err)
	}
	p.wg.Go(p.gatherPublishes)
	p.wg.Go(p.answerPublishes)
	group.Watch(p.lead)
	return p, nil
}

func (p *partition) close() {
	p.stopping.Do(func() {
		close(p.stop)
		p.unlead()
		p.wg.Wait()
	})
}

// lead starts and ends dispatchers as leadership comes and goes.
func (p *partition) lead(l cluster.Leadership) {
	p.unlead()
	if !l.Leader {
		return
	}
	p.applying.Lock()
	defer p.applying.Unlock()
	select {
	case <-p.stop:
		return
	default:
	}
	p.source = newSource(p, l.Term)
	p.dispatcher = p.replica.opt.Lead(p.source, l.Term)
	p.term.Store(l.Term)
}

func (p *partition) unlead() {
	p.applying.Lock()
	d, s := p.dispatcher, p.source
	p.dispatcher, p.source = nil, nil
	p.term.Store(0)
	p.applying.Unlock()
	if d != nil {
		d.Stop()
		s.close()
	}
}

// propose sends one command by itself and waits for its result.
func (p *partition) propose(ctx context.Context, data []byte) (*state.Result, error) {
	result, err := wait(ctx, p.group.Propose(data))
	if err != nil {
		return nil, err
	}
	return result.(*state.Result), nil
}

// partitionMachine is partition as the cluster sees it.
type partitionMachine partition

func (p *partitionMachine) Apply(b *cluster.Batch, entries []cluster.Entry) ([]any, error) {
	p.applying.Lock()
	results := make([]any, len(entries))
	for i, e := range entries {
		r, err := p.machine.Apply(b, e.Term, e.Data)
		if err != nil {
			p.applying.Unlock()
			return nil, fmt.Errorf("apply entry %d of partition %d: %w", e.Index, p.id, err)
		}
		results[i] = r
	}
	return results, nil
}

func (p *partitionMachine) Applied(_ []cluster.Entry, results []any) {
	defer p.applying.Unlock()
	if p.dispatcher == nil {
		return
	}
	for _, r := range results {
		p.dispatcher.Applied(r.(*state.Result))
	}
}

func (p *partitionMachine) Restored() error {
	p.applying.Lock()
	defer p.applying.Unlock()
	p.machine.Reset()
	return nil
}

// publish is a request's events on their way into an entry.
type publish struct {
	events []state.NewEvent
	size   int
	done   chan published
}

type published struct {
	accepted []state.Accepted
	err      error
}

// flight is a publish within a proposal.
type flight struct {
	*publish
	proposal *cluster.Proposal
}

const (
	// proposalsInFlight is how many entries of publishes may be on their way
	// before the next one gathers: it fills while the disk syncs, so that an
	// idle node adds no wait and a busy one shares each sync among many.
	proposalsInFlight = 2
	entryBytes        = 256 << 10
	entryEvents       = 1024
)

var donePool = sync.Pool{New: func() any { return make(chan published, 1) }}

func (p *partition) accept(ctx context.Context, events []state.NewEvent) ([]state.Accepted, error) {
	if p.term.Load() == 0 {
		return nil, meaning(cluster.ErrNotLeader)
	}
	done := donePool.Get().(chan published)
	q := &publish{events: events, done: done}
	for i := range events {
		q.size += 128 + len(events[i].Event.Data) + 4*len(events[i].Event.Targets)
	}
	select {
	case p.publishes <- q:
	default:
		donePool.Put(done)
		return nil, meaning(cluster.ErrOverloaded)
	}
	select {
	case answer := <-done:
		donePool.Put(done)
		return answer.accepted, answer.err
	case <-ctx.Done():
	case <-p.stop:
	}
	return nil, unknown() // the channel may still be answered: it is not reused
}

// gatherPublishes makes entries of what has come since the last one.
func (p *partition) gatherPublishes() {
	defer close(p.proposed)
	var next *publish
	for {
		if next == nil {
			select {
			case next = <-p.publishes:
			case <-p.stop:
				return
			}
		}
		batch, size, count := []flight{{publish: next}}, next.size, len(next.events)
		next = nil
		for size < entryBytes && count < entryEvents {
			select {
			case q := <-p.publishes:
				if size+q.size > entryBytes {
					next = q
				} else {
					batch, size, count = append(batch, flight{publish: q}), size+q.size, count+len(q.events)
					continue
				}
			default:
			}
			break
		}
		p.send(batch, count)
	}
}

func (p *partition) send(batch []flight, count int) {
	c := state.Accept{Stamp: p.replica.stamp(), Events: make([]state.NewEvent, 0, count)}
	for _, f := range batch {
		c.Events = append(c.Events, f.events...)
	}
	proposal := p.group.Propose(c.Encode())
	for i := range batch {
		batch[i].proposal = proposal
	}
	p.proposed <- batch
}

// answerPublishes answers proposals in the order in which they were made.
func (p *partition) answerPublishes() {
	for batch := range p.proposed {
		result, err := batch[0].proposal.Wait()
		err = meaning(err)
		at := 0
		for _, f := range batch {
			answer := published{err: err}
			if err == nil {
				n := len(f.events)
				answer.accepted = result.(*state.Result).Accepted[at : at+n : at+n]
				at += n
			}
			f.done <- answer
		}
	}
}

// reader is the committed state of the partition.
func (p *partition) reader() state.Reader { return p.group.View() }
