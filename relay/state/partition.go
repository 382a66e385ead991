// Package state is the replicated state machine: commands in, rows and
// results out. Apply is a function of (state, entry) alone: no clock, no
// randomness, no goroutine, no network; times and ids travel in the commands.
// Partition is the heart of the gateway, Meta its small, slow sibling.
//
// The formats here (commands, rows, keys) live on disks and in logs: each
// carries a version, and a change of one is a new version beside the old.
package state

import (
	"fmt"

	"github.com/omnisales/edgerelay/relay"
)

// Partition applies a partition group's entries. It keeps the status row in
// memory and is owned by the goroutine that applies.
type Partition struct {
	status Status
	loaded bool
	tally  map[statsKey]Counters
}

type statsKey struct {
	webhook uint32
	day     uint32
	slot    uint16
}

// Result is what an entry did.
type Result struct {
	Accepted []Accepted       // an item an event of Accept, in order
	Events   []*relay.Event   // those of them that were new
	Timers   []Timer          // deliveries that now wait for their time
	Settled  []*relay.Outcome // outcomes that took effect
	Replayed int
	Dropped  int
	Cursor   uint64
	Stamp    int64
}

// Accepted is the answer to one event.
type Accepted struct {
	Sequence  uint64
	CreatedAt int64
	Matched   int
	Duplicate bool
	Conflict  bool // the id stands for a different event
}

// Timer is a delivery that is due.
type Timer struct {
	Due      int64 // unix ms
	Sequence uint64
	Webhook  uint32
}

// Reset forgets what is held in memory: the state was replaced.
func (p *Partition) Reset() { p.loaded = false }

// Apply applies one entry. An error means that the entry or the state cannot
// be understood: the replica must stop.
func (p *Partition) Apply(w Writer, term uint64, data []byte) (*Result, error) {
	if !p.loaded {
		s, err := LoadStatus(w)
		if err != nil {
			return nil, err
		}
		p.status, p.loaded, p.tally = s, true, map[statsKey]Counters{}
	}
	t := &transition{Writer: w, p: p, result: &Result{}}
	if err := t.run(term, data); err != nil {
		return nil, err
	}
	t.flushTally()
	t.set([]byte{tableStatus}, p.status.encode())
	t.result.Cursor, t.result.Stamp = p.status.Cursor, p.status.Stamp
	return t.result, t.err
}

// transition is one entry being applied. Its set, delete and get keep the
// first error, so that the rules read without interruption.
type transition struct {
	Writer
	p      *Partition
	result *Result
	err    error
}

func (t *transition) run(term uint64, data []byte) error {
	kind, body, err := openEnvelope(data)
	if err != nil {
		return err
	}
	switch kind {
	case kindAccept:
		return apply(t, body, decodeAccept, t.accept)
	case kindSettle:
		return apply(t, body, decodeSettle, func(c *Settle) { t.settle(term, c) })
	case kindReplay:
		return apply(t, body, decodeReplay, t.replay)
	case kindExpire:
		return apply(t, body, decodeExpire, t.expire)
	case kindEvict:
		return apply(t, body, decodeEvict, t.evict)
	case kindDropWebhook:
		return apply(t, body, decodeDropWebhook, t.dropWebhook)
	}
	return fmt.Errorf("command kind %d is unknown to this program: upgrade it", kind)
}

func apply[C any](t *transition, body []byte, decode func([]byte) (*C, error), do func(*C)) error {
	c, err := decode(body)
	if err != nil {
		return fmt.Errorf("decode %T: %w", c, err)
	}
	do(c)
	return t.err
}

// advance moves the group's time forward and marks the first entry of an hour.
func (t *transition) advance(stamp int64) int64 {
	s := &t.p.status
	s.Stamp = max(s.Stamp, stamp)
	if h := hourOf(s.Stamp); h > s.Hour {
		s.Hour = h
		t.set(keyHour(h), hourRow{s.Sequence + 1, s.Number + 1}.encode())
	}
	return s.Stamp
}

func (t *transition) accept(c *Accept) {
	stamp := t.advance(c.Stamp)
	t.result.Accepted = make([]Accepted, len(c.Events))
	for i := range c.Events {
		t.result.Accepted[i] = t.acceptOne(stamp, &c.Events[i])
	}
}

func (t *transition) acceptOne(stamp int64, n *NewEvent) Accepted {
	e := n.Event
	id := keyID(e.Store, e.OrderingKey, e.ID)
	if v, ok := t.get(id); ok {
		row, err := decodeIDRow(v)
		t.keep(err)
		return Accepted{Sequence: row.sequence, CreatedAt: row.created, Matched: row.matched, Duplicate: row.digest == n.Digest, Conflict: row.digest != n.Digest}
	}
	t.p.status.Sequence++
	e.Sequence, e.AcceptedAt = t.p.status.Sequence, stamp
	row := idRow{e.Sequence, n.Digest, len(e.Targets), e.CreatedAt}
	t.set(id, row.encode())
	t.set(key1(tableEvent, e.Sequence), appendHeader(nil, e))
	t.set(key1(tableBody, e.Sequence), e.Data)
	for _, target := range e.Targets {
		t.count(target.Webhook, stamp, Counter{Kind: CountCreated}, 1)
		t.count(target.Webhook, stamp, Counter{Kind: CountType, Type: e.Type}, 1)
	}
	t.result.Events = append(t.result.Events, e)
	return Accepted{Sequence: e.Sequence, CreatedAt: e.CreatedAt, Matched: len(e.Targets)}
}

// count adds to a webhook's slot; the sums are written once an entry.
func (t *transition) count(webhook uint32, at int64, c Counter, n int64) {
	k := statsKey{webhook, dayOf(at), slotOf(at)}
	slot := t.p.tally[k]
	if slot == nil {
		slot = Counters{}
		t.p.tally[k] = slot
	}
	slot[c] += n
}

func (t *transition) countState(webhook uint32, accepted int64, s relay.State, eventType string, n int64) {
	t.count(webhook, accepted, Counter{Kind: CountState, Arg: uint32(s)}, n)
	t.count(webhook, accepted, Counter{Kind: CountTypeEnd, Arg: uint32(s), Type: eventType}, n)
}

// flushTally writes in any order: each key is written once, sums commute.
func (t *transition) flushTally() {
	for k, slot := range t.p.tally {
		if v := slot.encode(); len(v) > 0 {
			t.keep(t.Merge(keyStats(k.day, k.webhook, k.slot), v))
		}
	}
	clear(t.p.tally)
}

func (t *transition) keep(err error) {
	if t.err == nil {
		t.err = err
	}
}

func (t *transition) set(key, value []byte) { t.keep(t.Writer.Set(key, value)) }
func (t *transition) delete(key []byte)     { t.keep(t.Writer.Delete(key)) }

// deleteRange deletes lower <= key < upper.
func (t *transition) deleteRange(lower, upper []byte) {
	t.keep(t.Writer.DeleteRange(lower, upper))
}

func (t *transition) get(key []byte) ([]byte, bool) {
	v, ok, err := t.Writer.Get(key)
	t.keep(err)
	return v, ok && err == nil
}
