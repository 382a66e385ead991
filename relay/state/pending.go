package state

import (
	"bytes"

	"github.com/omnisales/edgerelay/relay"
)

// What a dispatcher reads: it begins at the cursor and at the rows of what is
// parked.

// LoadParked reads a delivery's parked row.
func LoadParked(r Reader, sequence uint64, webhook uint32) (p Parked, ok bool, err error) {
	v, ok, err := r.Get(keyParked(sequence, webhook))
	if err != nil || !ok {
		return p, false, err
	}
	p, err = decodeParked(v)
	return p, err == nil, err
}

// Unsettled reads, in commit order, at most limit events above after, and
// for each those of its targets that are neither settled nor parked. Data is
// read where there are any.
func Unsettled(r Reader, after uint64, limit int) (events []*relay.Event, open [][]uint32, err error) {
	var fault error
	err = r.Scan(key1(tableEvent, after+1), []byte{tableEvent + 1}, false, func(k, v []byte) bool {
		var e *relay.Event
		if e, fault = decodeEvent(be64(k[1:]), v); fault != nil {
			return false
		}
		events = append(events, e)
		return len(events) < limit
	})
	if err = firstError(err, fault); err != nil || len(events) == 0 {
		return nil, nil, err
	}
	deliveries, err := deliveriesOf(r, events)
	if err != nil {
		return nil, nil, err
	}
	var needed []*relay.Event
	open = make([][]uint32, len(events))
	for i, ds := range deliveries {
		for _, d := range ds {
			if d.State == relay.Pending {
				open[i] = append(open[i], d.Webhook)
			}
		}
		if len(open[i]) > 0 {
			needed = append(needed, events[i])
		}
	}
	return events, open, loadData(r, needed)
}

// loadData reads the data of events in ascending order: in one scan where
// they stand close together.
func loadData(r Reader, events []*relay.Event) error {
	if !dense(len(events), func(i int) uint64 { return events[i].Sequence }) {
		for _, e := range events {
			var err error
			if e.Data, _, err = r.Get(key1(tableBody, e.Sequence)); err != nil {
				return err
			}
		}
		return nil
	}
	next := 0
	return r.Scan(key1(tableBody, events[0].Sequence), key1(tableBody, events[len(events)-1].Sequence+1), false, func(k, v []byte) bool {
		for next < len(events) && events[next].Sequence < be64(k[1:]) {
			next++
		}
		if next < len(events) && events[next].Sequence == be64(k[1:]) {
			events[next].Data = bytes.Clone(v)
		}
		return next < len(events)
	})
}

// dense says whether reading everything from the first of n ascending
// sequences to the last is cheaper than looking each up.
func dense(n int, sequence func(int) uint64) bool {
	return n > 1 && sequence(n-1)-sequence(0) < uint64(4*n)
}

// LoadEvents reads events with their data; sequences ascend. Those that are
// gone are left out.
func LoadEvents(r Reader, sequences []uint64) (events []*relay.Event, err error) {
	if !dense(len(sequences), func(i int) uint64 { return sequences[i] }) {
		for _, s := range sequences {
			e, err := LoadEvent(r, s)
			if err != nil {
				return nil, err
			}
			if e != nil {
				events = append(events, e)
			}
		}
		return events, nil
	}
	next := 0
	var fault error
	err = r.Scan(key1(tableEvent, sequences[0]), key1(tableEvent, sequences[len(sequences)-1]+1), false, func(k, v []byte) bool {
		for next < len(sequences) && sequences[next] < be64(k[1:]) {
			next++
		}
		if next < len(sequences) && sequences[next] == be64(k[1:]) {
			var e *relay.Event
			if e, fault = decodeEvent(be64(k[1:]), v); fault != nil {
				return false
			}
			events = append(events, e)
		}
		return next < len(sequences)
	})
	if err = firstError(err, fault); err != nil {
		return nil, err
	}
	return events, loadData(r, events)
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

// Waiter is a delivery in a webhook's backlog.
type Waiter struct {
	Sequence uint64
	Attempts int // made before
}

// Waiting reads at most limit deliveries of a webhook's backlog above after.
func Waiting(r Reader, webhook uint32, after uint64, limit int) (waiters []Waiter, err error) {
	var fault error
	err = r.Scan(keyHook(tableBacklog, webhook, after+1), keyHook(tableBacklog, webhook+1, 0), false, func(k, v []byte) bool {
		d := decoder{b: v}
		d.version()
		waiters = append(waiters, Waiter{be64(k[5:]), d.int()})
		fault = d.end()
		return fault == nil && len(waiters) < limit
	})
	return waiters, firstError(err, fault)
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
