package state

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	"github.com/omnisales/edgerelay/relay"
)

// memory is a Writer over a map: what a group's keys are, without a disk.
type memory struct {
	rows   map[string][]byte
	sorted []string // of the keys; nil after a change
}

func newMemory() *memory { return &memory{rows: map[string][]byte{}} }

func (m *memory) Get(key []byte) ([]byte, bool, error) {
	v, ok := m.rows[string(key)]
	return bytes.Clone(v), ok, nil
}

func (m *memory) Set(key, value []byte) error {
	if _, ok := m.rows[string(key)]; !ok {
		m.sorted = nil
	}
	m.rows[string(key)] = bytes.Clone(value)
	return nil
}

func (m *memory) Delete(key []byte) error {
	delete(m.rows, string(key))
	m.sorted = nil
	return nil
}

func (m *memory) DeleteRange(lower, upper []byte) error {
	maps.DeleteFunc(m.rows, func(k string, _ []byte) bool { return k >= string(lower) && k < string(upper) })
	m.sorted = nil
	return nil
}

func (m *memory) Merge(key, value []byte) error {
	return m.Set(key, MergeCounters(nil, m.rows[string(key)], value))
}

func (m *memory) Scan(lower, upper []byte, reverse bool, fn func(key, value []byte) bool) error {
	if m.sorted == nil {
		m.sorted = slices.Sorted(maps.Keys(m.rows))
	}
	from, _ := slices.BinarySearch(m.sorted, string(lower))
	to := len(m.sorted)
	if upper != nil {
		to, _ = slices.BinarySearch(m.sorted, string(upper))
	}
	keys := m.sorted[from:max(from, to)]
	for i := range keys {
		k := keys[i]
		if reverse {
			k = keys[len(keys)-1-i]
		}
		if !fn([]byte(k), m.rows[k]) {
			break
		}
	}
	return nil
}

// rig is a partition in memory.
type rig struct {
	t     testing.TB
	rows  *memory
	p     Partition
	term  uint64
	stamp int64
	log   [][]byte
}

func newRig(t testing.TB) *rig {
	return &rig{t: t, rows: newMemory(), term: 1, stamp: 1_700_000_000_000}
}

func (r *rig) apply(data []byte) *Result {
	r.t.Helper()
	r.log = append(r.log, data)
	result, err := r.p.Apply(r.rows, r.term, data)
	if err != nil {
		r.t.Fatalf("apply %x: %v", data, err)
	}
	return result
}

func (r *rig) event(id string, hooks ...uint32) NewEvent {
	e := &relay.Event{Store: 1, ID: id, Type: "order.created", CreatedAt: r.stamp / 1000, Data: []byte(`{"of":"` + id + `"}`)}
	for _, h := range hooks {
		e.Targets = append(e.Targets, relay.Target{Webhook: h, Revision: 1})
	}
	return NewEvent{Event: e, Digest: [DigestSize]byte{1}}
}

func (r *rig) accept(events ...NewEvent) *Result {
	r.t.Helper()
	return r.apply((&Accept{Stamp: r.stamp, Events: events}).Encode())
}

func (r *rig) outcome(sequence uint64, hook uint32, s relay.State, attempt int) *relay.Outcome {
	o := &relay.Outcome{Sequence: sequence, Webhook: hook, EventType: "order.created", AcceptedAt: r.stamp, State: s, Attempt: attempt, StartedAt: r.stamp, DurationUS: 1500, Node: "n"}
	if e, _ := LoadHeader(r.rows, sequence); e != nil {
		o.AcceptedAt = e.AcceptedAt
	}
	switch s {
	case relay.Succeeded:
		o.StatusCode = 200
	case relay.Retrying:
		o.StatusCode, o.Error, o.NextAt = 500, "status_500", r.stamp+1000
	case relay.Dead:
		o.StatusCode, o.Error = 500, "status_500"
	}
	return o
}

func (r *rig) settle(cursor uint64, outcomes ...*relay.Outcome) *Result {
	r.t.Helper()
	return r.apply((&Settle{Stamp: r.stamp, Term: r.term, Cursor: cursor, Outcomes: outcomes}).Encode())
}

func (r *rig) status() Status {
	s, err := LoadStatus(r.rows)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *rig) delivery(sequence uint64, hook uint32) Delivery {
	r.t.Helper()
	e, err := LoadHeader(r.rows, sequence)
	if err != nil || e == nil {
		r.t.Fatalf("event %d: %v, %v", sequence, e, err)
	}
	ds, err := Deliveries(r.rows, e)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, d := range ds {
		if d.Webhook == hook {
			return d
		}
	}
	r.t.Fatalf("event %d does not go to %d", sequence, hook)
	return Delivery{}
}

func (r *rig) failures(hook uint32) (out []relay.Failure) {
	if err := Failures(r.rows, hook, 0, func(f *relay.Failure) bool { out = append(out, *f); return true }); err != nil {
		r.t.Fatal(err)
	}
	return out
}

func (r *rig) stats(hook uint32) Counters {
	sum := Counters{}
	slots, err := Stats(r.rows, hook, 0, r.stamp+dayMS)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, s := range slots {
		sum.Add(s.Counters)
	}
	return sum
}

func parked(o *relay.Outcome) *relay.Outcome { o.Parked = true; return o }
