package state

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/omnisales/edgerelay/relay"
)

type place struct {
	sequence uint64
	webhook  uint32
}

// model is what the random run knows of the partition: where each delivery
// stands, and how often it was tried.
type model struct {
	*rig
	rng   *rand.Rand
	state map[place]relay.State
	ids   int
}

// TestRandomLife drives a partition with random commands and compares it, and
// all its rows, with a model after each.
func TestRandomLife(t *testing.T) {
	seeds := []uint64{1, 2, 3, rand.Uint64()}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			m := &model{rig: newRig(t), rng: rand.New(rand.NewPCG(seed, 0)), state: map[place]relay.State{}}
			steps := 150
			if testing.Short() {
				steps = 60
			}
			for range steps {
				m.step()
				m.compare()
				m.check()
			}
			// A second replica, and one that restarts, hold the same bytes.
			replay := newMemory()
			p := &Partition{}
			for i, data := range m.log {
				if i%17 == 0 {
					p = &Partition{}
				}
				if _, err := p.Apply(replay, m.term, data); err != nil {
					t.Fatal(err)
				}
			}
			if !maps.EqualFunc(replay.rows, m.rows.rows, bytes.Equal) {
				t.Fatal("two replicas differ")
			}
		})
	}
}

func (m *model) step() {
	m.stamp += m.rng.Int64N(20 * 60_000)
	switch n := m.rng.IntN(20); {
	case n < 6:
		m.publish()
	case n < 15:
		m.deliver()
	case n < 17:
		m.replaySome()
	case n == 17:
		m.expireSome()
	case n == 18:
		m.apply((&Evict{Stamp: m.stamp, Evidence: m.rng.Uint64N(m.status().Number + 1), Bodies: m.rng.Uint64N(m.status().Sequence + 1)}).Encode())
	default:
		m.apply((&Settle{Stamp: m.stamp, Term: m.term - 1, Cursor: 1 << 40}).Encode())
	}
}

func (m *model) publish() {
	var events []NewEvent
	for range 1 + m.rng.IntN(4) {
		m.ids++
		var hooks []uint32
		for h := uint32(1); h <= 4; h++ {
			if m.rng.IntN(2) == 0 {
				hooks = append(hooks, h)
			}
		}
		events = append(events, m.event(fmt.Sprint("evt-", m.ids), hooks...))
	}
	for _, e := range m.accept(events...).Events {
		for _, target := range e.Targets {
			m.state[place{e.Sequence, target.Webhook}] = relay.Pending
		}
	}
}

// open are the deliveries that a dispatcher could report of, in order.
func (m *model) open() []place {
	var open []place
	for p, s := range m.state {
		if !s.Settled() {
			open = append(open, p)
		}
	}
	slices.SortFunc(open, func(a, b place) int {
		if a.sequence != b.sequence {
			return int(a.sequence) - int(b.sequence)
		}
		return int(a.webhook) - int(b.webhook)
	})
	return open
}

func (m *model) deliver() {
	var outcomes []*relay.Outcome
	results := []relay.State{relay.Succeeded, relay.Succeeded, relay.Retrying, relay.Dead, relay.Cancelled, relay.Filtered, relay.Backlog}
	for _, p := range m.open() {
		if m.rng.IntN(3) != 0 {
			continue
		}
		o := m.outcome(p.sequence, p.webhook, results[m.rng.IntN(len(results))], 1+m.rng.IntN(3))
		if o.State == relay.Backlog {
			o.Attempt = 0
		}
		if m.rng.IntN(4) == 0 {
			o.Evidence = []byte(`{"b":"eA=="}`)
		}
		o.Parked = m.state[p] != relay.Pending
		m.state[p] = o.State
		outcomes = append(outcomes, o)
	}
	cursor := m.status().Sequence
	for p, s := range m.state {
		if s == relay.Pending {
			cursor = min(cursor, p.sequence-1)
		}
	}
	m.settle(cursor, outcomes...)
}

func (m *model) replaySome() {
	hook := uint32(1 + m.rng.IntN(4))
	c := &Replay{Stamp: m.stamp, Webhook: hook}
	for _, f := range m.failures(hook) {
		if m.rng.IntN(2) == 0 {
			c.Failures = append(c.Failures, f.ID)
			if f.State == relay.Dead {
				m.state[place{f.Sequence, hook}] = relay.Replaying
			}
		}
	}
	m.apply(c.Encode())
}

// expireSome lets old events go: what was pending is a dead letter then, and
// nothing but settled deliveries and old letters disappears.
func (m *model) expireSome() {
	s := m.status()
	c := &Expire{Stamp: m.stamp, From: 1, Floor: m.rng.Uint64N(s.Sequence + 1), FailedBefore: m.stamp - 2*3600_000, Evidence: m.rng.Uint64N(s.Number + 1)}
	m.apply(c.Encode())
	floor := min(c.Floor, s.Cursor)
	for p, was := range m.state {
		e, err := LoadHeader(m.rows, p.sequence)
		if err != nil {
			m.t.Fatal(err)
		}
		switch {
		case e == nil && (p.sequence > floor || !was.Settled()):
			m.t.Fatalf("delivery %v was %v and is gone", p, was)
		case e == nil:
			delete(m.state, p)
		case p.sequence <= floor && !was.Settled():
			m.state[p] = relay.Dead
		}
	}
}

// compare looks every delivery up, and checks that the sums of statistics are
// what the states are.
func (m *model) compare() {
	m.t.Helper()
	for p, want := range m.state {
		if got := m.delivery(p.sequence, p.webhook).State; got != want && (got != relay.Dead || m.deadLetter(p)) {
			m.t.Fatalf("delivery %v is %v, want %v", p, got, want)
		}
	}
	for hook := uint32(1); hook <= 4; hook++ {
		c := m.stats(hook)
		ended := c.Count(relay.Succeeded) + c.Count(relay.Dead) + c.Count(relay.Filtered) + c.Count(relay.Cancelled)
		pending := int64(0)
		for p, s := range m.state {
			if p.webhook == hook && !s.Settled() {
				pending++
			}
		}
		if created := c[Counter{Kind: CountCreated}]; created != ended+pending {
			m.t.Fatalf("webhook %d: %d created, %d ended, %d pending", hook, created, ended, pending)
		}
	}
}

// deadLetter says whether a dead delivery still has its letter: once that is
// old and swept, the event keeps only the outcome.
func (m *model) deadLetter(p place) bool {
	row, ok, err := LoadParked(m.rows, p.sequence, p.webhook)
	return err == nil && ok && row.State == relay.Dead
}

// check holds all rows against each other: none without its counterpart.
func (r *rig) check() {
	r.t.Helper()
	has := func(key []byte) bool { _, ok := r.rows.rows[string(key)]; return ok }
	for k, v := range r.rows.rows {
		key := []byte(k)
		switch key[0] {
		case tableParked:
			p, err := decodeParked(v)
			sequence, hook := be64(key[1:]), be32(key[9:])
			ok := err == nil && has(key1(tableEvent, sequence)) && has(key1(tableBody, sequence))
			switch p.State {
			case relay.Retrying, relay.Replaying:
				ok = ok && has(keyTimer(p.Due, sequence, hook))
			case relay.Backlog:
				ok = ok && has(keyHook(tableBacklog, hook, sequence))
			case relay.Dead:
				ok = ok && p.Failure != 0
			}
			if p.Failure != 0 {
				ok = ok && has(keyHook(tableDead, hook, p.Failure))
			}
			if !ok {
				r.t.Fatalf("parked row %x %+v stands alone", key, p)
			}
		case tableTimer:
			v, ok := r.rows.rows[string(keyParked(be64(key[9:]), be32(key[17:])))]
			if p, err := decodeParked(v); !ok || err != nil || uint64(p.Due) != be64(key[1:]) || p.State == relay.Backlog || p.State == relay.Dead {
				r.t.Fatalf("timer %x without its parked row", key)
			}
		case tableBacklog:
			v, ok := r.rows.rows[string(keyParked(be64(key[5:]), be32(key[1:])))]
			if p, err := decodeParked(v); !ok || err != nil || p.State != relay.Backlog {
				r.t.Fatalf("backlog row %x without its parked row", key)
			}
		case tableDead:
			f, err := decodeFailure(v)
			want := binary.BigEndian.AppendUint64(bytes.Clone(key[1:5]), be64(key[5:]))
			if err != nil || !bytes.Equal(r.rows.rows[string(keyFailure(f.ID))], want) {
				r.t.Fatalf("dead letter %x cannot be found by its id %s", key, f.ID)
			}
			if f.State != relay.Succeeded && !has(keyParked(f.Sequence, be32(key[1:]))) {
				r.t.Fatalf("dead letter %+v without its delivery", f)
			}
		case tableFailure:
			if !has(keyHook(tableDead, be32(v), be64(v[4:]))) {
				r.t.Fatalf("failure %s points nowhere", key[1:])
			}
		case tableID:
			if row, err := decodeIDRow(v); err != nil || !has(key1(tableEvent, row.sequence)) {
				r.t.Fatalf("id %s of an event that is gone", key[5:])
			}
		case tableEvent:
			if e, err := decodeEvent(be64(key[1:]), v); err != nil || !has(keyID(e.Store, e.OrderingKey, e.ID)) {
				r.t.Fatalf("event %x without its id", key)
			}
		}
	}
}
