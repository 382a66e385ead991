package state

import (
	"fmt"

	"github.com/omnisales/edgerelay/relay"
)

// LoadStatus reads the partition's status; a new group's is zero.
func LoadStatus(r Reader) (Status, error) {
	v, ok, err := r.Get([]byte{tableStatus})
	if err != nil || !ok {
		return Status{}, err
	}
	return decodeStatus(v)
}

// LoadHeader reads an event without its data; nil where there is none.
func LoadHeader(r Reader, sequence uint64) (*relay.Event, error) {
	v, ok, err := r.Get(key1(tableEvent, sequence))
	if err != nil || !ok {
		return nil, err
	}
	return decodeEvent(sequence, v)
}

func decodeEvent(sequence uint64, v []byte) (*relay.Event, error) {
	d := decoder{b: v}
	e := readHeader(&d)
	e.Sequence = sequence
	if err := d.end(); err != nil {
		return nil, fmt.Errorf("event %d: %w", sequence, err)
	}
	return e, nil
}

// LoadEvent reads an event with its data; Data is nil where it is gone.
func LoadEvent(r Reader, sequence uint64) (*relay.Event, error) {
	e, err := LoadHeader(r, sequence)
	if e == nil || err != nil {
		return nil, err
	}
	e.Data, _, err = r.Get(key1(tableBody, sequence))
	return e, err
}

// FindEvents finds the events of a store that have this id: one, or one an
// ordering key; the one without a key first.
func FindEvents(r Reader, store uint32, id string) (sequences []uint64, err error) {
	lower := keyID(store, "", id)
	upper := append(append([]byte{}, lower[:len(lower)-1]...), 1)
	var fault error
	err = r.Scan(lower, upper, false, func(_, v []byte) bool {
		row, err := decodeIDRow(v)
		fault = err
		sequences = append(sequences, row.sequence)
		return err == nil && len(sequences) < 100
	})
	if err == nil {
		err = fault
	}
	return sequences, err
}

// Delivery is where one of an event's deliveries stands.
type Delivery struct {
	Webhook    uint32
	State      relay.State
	Attempts   int
	StatusCode int
	NextAt     int64 // unix ms, while retrying
}

// Deliveries tells where each of an event's deliveries stands.
func Deliveries(r Reader, e *relay.Event) ([]Delivery, error) {
	at := make(map[uint32]int, len(e.Targets))
	out := make([]Delivery, len(e.Targets))
	for i, t := range e.Targets {
		out[i].Webhook = t.Webhook
		at[t.Webhook] = i
	}
	var fault error
	if err := r.Scan(keyOutcome(e.Sequence, 0), key1(tableOutcome, e.Sequence+1), false, func(_, v []byte) bool {
		fault = eachEnding(v, func(d Delivery) {
			if i, ok := at[d.Webhook]; ok {
				out[i] = d
			}
		})
		return fault == nil
	}); err != nil {
		return nil, err
	}
	if fault != nil {
		return nil, fault
	}
	err := r.Scan(keyParked(e.Sequence, 0), key1(tableParked, e.Sequence+1), false, func(k, v []byte) bool {
		p, err := decodeParked(v)
		fault = err
		if i, ok := at[be32(k[9:])]; ok && err == nil {
			out[i].State, out[i].Attempts = p.State, p.Attempts
			if p.State == relay.Retrying {
				out[i].NextAt = p.Due
			}
		}
		return err == nil
	})
	if err == nil {
		err = fault
	}
	return out, err
}

func eachEnding(v []byte, fn func(Delivery)) error {
	d := decoder{b: v}
	d.version()
	for d.err == nil && len(d.b) > 0 {
		e := Delivery{Webhook: d.uint32(), State: relay.State(d.byte()), Attempts: d.int(), StatusCode: d.int()}
		if d.err == nil {
			fn(e)
		}
	}
	return d.err
}

// LoadParked reads a delivery's parked row.
func LoadParked(r Reader, sequence uint64, webhook uint32) (p Parked, ok bool, err error) {
	v, ok, err := r.Get(keyParked(sequence, webhook))
	if err != nil || !ok {
		return p, false, err
	}
	p, err = decodeParked(v)
	return p, err == nil, err
}

// Unsettled calls fn, in commit order, for at most limit events above after
// with those of their targets that are neither settled nor parked; events
// with none are passed with an empty list. It returns the last sequence seen.
func Unsettled(r Reader, after uint64, limit int, fn func(e *relay.Event, open []uint32)) (last uint64, err error) {
	last = after
	var events []*relay.Event
	var fault error
	err = r.Scan(key1(tableEvent, after+1), []byte{tableEvent + 1}, false, func(k, v []byte) bool {
		e, err := decodeEvent(be64(k[1:]), v)
		if fault = err; err != nil {
			return false
		}
		events = append(events, e)
		return len(events) < limit
	})
	if err != nil || fault != nil {
		return last, firstError(err, fault)
	}
	for _, e := range events {
		deliveries, err := Deliveries(r, e)
		if err != nil {
			return last, err
		}
		var open []uint32
		for _, d := range deliveries {
			if d.State == relay.Pending {
				open = append(open, d.Webhook)
			}
		}
		fn(e, open)
		last = e.Sequence
	}
	return last, nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Timers reads at most limit timers at or after from and due at or before
// until, in order.
func Timers(r Reader, from Timer, until int64, limit int) (out []Timer, err error) {
	err = r.Scan(keyTimer(from.Due, from.Sequence, from.Webhook), key1(tableTimer, uint64(until)+1), false, func(k, _ []byte) bool {
		out = append(out, Timer{int64(be64(k[1:])), be64(k[9:]), be32(k[17:])})
		return len(out) < limit
	})
	return out, err
}

// NextTimer is when the first timer at or after from is due.
func NextTimer(r Reader, from Timer) (due int64, ok bool, err error) {
	err = r.Scan(keyTimer(from.Due, from.Sequence, from.Webhook), []byte{tableTimer + 1}, false, func(k, _ []byte) bool {
		due, ok = int64(be64(k[1:])), true
		return false
	})
	return due, ok, err
}

// Waiting reads at most limit sequences of a webhook's backlog above after.
func Waiting(r Reader, webhook uint32, after uint64, limit int) (sequences []uint64, err error) {
	err = r.Scan(keyHook(tableBacklog, webhook, after+1), keyHook(tableBacklog, webhook+1, 0), false, func(k, _ []byte) bool {
		sequences = append(sequences, be64(k[5:]))
		return len(sequences) < limit
	})
	return sequences, err
}

// WaitingWebhooks lists the webhooks that have a backlog, by skipping from
// one to the next: a seek each.
func WaitingWebhooks(r Reader) (webhooks []uint32, err error) {
	next := uint32(0)
	for {
		found := false
		err = r.Scan(keyHook(tableBacklog, next, 0), []byte{tableBacklog + 1}, false, func(k, _ []byte) bool {
			webhooks, next, found = append(webhooks, be32(k[1:])), be32(k[1:])+1, true
			return false
		})
		if err != nil || !found || next == 0 {
			return webhooks, err
		}
	}
}
