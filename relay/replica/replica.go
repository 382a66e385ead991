// Package replica is the bridge between the cluster's raft groups and the
// gateway's state machines: it proposes commands, gathers many publishes or
// outcomes into one entry, hands what was committed to the dispatcher of a
// led partition, and keeps the registry of webhooks up to date.
//
// What it guarantees: Accept returns without error only for what is committed
// and applied; an outcome takes effect only in the term of its dispatcher.
// Open starts its goroutines, Close waits for them.
package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/omnisales/edgerelay/cluster"
	"github.com/omnisales/edgerelay/relay"
	"github.com/omnisales/edgerelay/relay/state"
)

// Registry is what the meta group's webhooks are shown to.
type Registry interface {
	Put(h *relay.Webhook)
	Delete(ordinal uint32)
	Reset(all []*relay.Webhook)
	Webhook(ordinal uint32) *relay.Webhook
}

// Source is a led partition as its dispatcher sees it, for one term.
type Source interface {
	Reader() state.Reader
	Settle(o *relay.Outcome)
	SetCursor(sequence uint64)
	// Deleted says whether a webhook that the registry does not know was
	// deleted: it may only not be known yet.
	Deleted(webhook uint32) bool
}

// Dispatcher delivers a led partition's events. Applied is called in commit
// order for every entry after Lead, and must not block.
type Dispatcher interface {
	Applied(result *state.Result)
	Stop()
}

// Options of a Replica. All but the limits are required.
type Options struct {
	Node     *cluster.Node
	Registry Registry
	// Lead starts the dispatcher of a partition that this node now leads.
	// Nothing is applied to the partition while it runs: it must be short.
	Lead           func(src Source, term uint64) Dispatcher
	Retention      time.Duration
	RetentionBytes int64 // 0: no limit
	FreeDisk       func() (free, total uint64, err error)
	Logger         *slog.Logger
	Now            func() time.Time
}

// Replica is a node's copy of the meta group and of the partitions.
type Replica struct {
	opt        Options
	meta       *metaGroup
	partitions []*partition
	diskFull   atomic.Bool
	stop       chan struct{}
	wg         sync.WaitGroup
	closing    sync.Once
}

const (
	metaGroupID    cluster.GroupID = 0
	firstPartition cluster.GroupID = 1
)

// Open starts the groups of a one-node cluster: meta and one partition.
func Open(opt Options) (*Replica, error) {
	r := &Replica{opt: opt, stop: make(chan struct{})}
	var err error
	if r.meta, err = openMeta(opt.Node, opt.Registry); err != nil {
		return nil, err
	}
	// The state of a group is what was last flushed until its log is applied
	// again: with the webhooks of then, events would match too few of them,
	// or go where they no longer should.
	<-r.meta.caughtUp
	p, err := openPartition(r, firstPartition)
	if err != nil {
		return nil, err
	}
	r.partitions = []*partition{p}
	r.wg.Go(r.retain)
	return r, nil
}

// Close stops the dispatchers and the proposing. The node, which belongs to
// the caller, is closed after it.
func (r *Replica) Close() {
	r.closing.Do(func() {
		close(r.stop)
		for _, p := range r.partitions {
			p.close()
		}
		r.wg.Wait()
	})
}

// Ready says why the replica cannot take traffic yet, or nil.
func (r *Replica) Ready() error {
	if !r.meta.led.Load() {
		return errors.New("the meta group has no leader yet")
	}
	for _, p := range r.partitions {
		if p.term.Load() == 0 {
			return fmt.Errorf("partition %d has no leader yet", p.id)
		}
	}
	return nil
}

// Readers gives the committed state of every partition.
func (r *Replica) Readers() []state.Reader {
	readers := make([]state.Reader, len(r.partitions))
	for i, p := range r.partitions {
		readers[i] = p.group.View()
	}
	return readers
}

// Accept makes events durable; an answer for each, in order. The error is a
// *relay.Error: overloaded and unavailable mean that nothing was accepted,
// outcome_unknown that some may have been.
func (r *Replica) Accept(ctx context.Context, events []state.NewEvent) ([]state.Accepted, error) {
	if r.diskFull.Load() {
		return nil, &relay.Error{Code: relay.CodeUnavailable, Message: "the disk is nearly full: free some, or lower --retention-bytes", RetryAfter: 30}
	}
	n := len(r.partitions)
	if n == 1 {
		return r.partitions[0].accept(ctx, events)
	}
	shares := make([][]state.NewEvent, n)
	places := make([][]int, n)
	for i := range events {
		e := events[i].Event
		to := relay.Partition(e.Store, e.OrderingKey, e.ID, n)
		shares[to] = append(shares[to], events[i])
		places[to] = append(places[to], i)
	}
	answers := make([]state.Accepted, len(events))
	for to, share := range shares {
		if len(share) == 0 {
			continue
		}
		got, err := r.partitions[to].accept(ctx, share)
		if err != nil {
			return nil, err
		}
		for i, place := range places[to] {
			answers[place] = got[i]
		}
	}
	return answers, nil
}

// replayChunk bounds the failures of one entry.
const replayChunk = 500

// Replay sends a webhook's dead letters out again and counts those it moved.
func (r *Replica) Replay(ctx context.Context, webhook uint32, failures []string) (int, error) {
	total := 0
	for len(failures) > 0 {
		n := min(replayChunk, len(failures))
		for _, p := range r.partitions {
			c := state.Replay{Stamp: r.stamp(), Webhook: webhook, Failures: failures[:n]}
			result, err := p.propose(ctx, c.Encode())
			if err != nil {
				return total, err
			}
			total += result.Replayed
		}
		failures = failures[n:]
	}
	return total, nil
}

// LogTest records the attempt of a test event.
func (r *Replica) LogTest(ctx context.Context, o *relay.Outcome) error {
	p := r.partitions[0]
	c := state.Settle{Stamp: r.stamp(), Term: p.term.Load(), Outcomes: []*relay.Outcome{o}}
	_, err := p.propose(ctx, c.Encode())
	return err
}

// PutWebhook creates or changes a webhook; it is in force when this returns.
func (r *Replica) PutWebhook(ctx context.Context, h *relay.Webhook) (*relay.Webhook, error) {
	data, err := (&state.PutWebhook{Stamp: r.stamp(), Webhook: h}).Encode()
	if err != nil {
		return nil, err
	}
	return r.meta.propose(ctx, data)
}

// DeleteWebhook deletes a store's webhook.
func (r *Replica) DeleteWebhook(ctx context.Context, store uint32, id string) error {
	data, err := (&state.DeleteWebhook{Stamp: r.stamp(), Store: store, ID: id}).Encode()
	if err != nil {
		return err
	}
	_, err = r.meta.propose(ctx, data)
	return err
}

// DeletedWebhook is the id that a deleted webhook had; "" where there was none.
func (r *Replica) DeletedWebhook(ordinal uint32) (string, error) {
	return state.DroppedWebhook(r.meta.group.View(), ordinal)
}

func (r *Replica) stamp() int64 { return r.opt.Now().UnixMilli() }

// wait waits for a proposal and gives the error its meaning for a user.
func wait(ctx context.Context, p *cluster.Proposal) (any, error) {
	select {
	case <-p.Done():
	case <-ctx.Done():
		return nil, unknown()
	}
	result, err := p.Wait()
	return result, meaning(err)
}

func meaning(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, cluster.ErrOverloaded):
		return &relay.Error{Code: relay.CodeOverloaded, Message: "too much at once: send again after Retry-After", RetryAfter: 1}
	case errors.Is(err, cluster.ErrNotLeader):
		return &relay.Error{Code: relay.CodeUnavailable, Message: "no leader at the moment: send again after Retry-After", RetryAfter: 1}
	}
	return unknown()
}

func unknown() error {
	return &relay.Error{Code: relay.CodeOutcomeUnknown, Message: "it is not known whether this was accepted: send it again with the same id", RetryAfter: 1}
}
