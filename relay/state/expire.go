package state

import (
	"encoding/binary"

	"github.com/omnisales/edgerelay/relay"
)

// hourRow is the first sequence and attempt number of an hour: how a time
// becomes a place.
type hourRow struct{ sequence, number uint64 }

func (h hourRow) encode() []byte {
	return binary.AppendUvarint(binary.AppendUvarint([]byte{0}, h.sequence), h.number)
}

func decodeHour(v []byte) (h hourRow, err error) {
	d := decoder{b: v}
	d.version()
	h.sequence, h.number = d.uint(), d.uint()
	return h, d.end()
}

const expiredError = "expired: held past the retention"

// expire never passes the cursor: what stands below it is settled or parked,
// and what is parked decides whether its event stays.
func (t *transition) expire(c *Expire) {
	stamp := t.advance(c.Stamp)
	s := &t.p.status
	floor := min(c.Floor, s.Cursor)
	if floor >= c.From {
		held, freed := t.expireParked(stamp, c.From, floor, c.FailedBefore)
		for _, sequence := range freed {
			if sequence <= s.Expired && !held[sequence] {
				t.deleteEvents(sequence, sequence)
			}
		}
		if floor > s.Expired && c.From <= s.Expired+1 {
			t.deleteUnheld(s.Expired+1, floor, held)
			s.Expired = floor
		}
	}
	t.deleteRange([]byte{tableAttempt}, keyDay(tableAttempt, c.Day, 0))
	t.deleteRange([]byte{tableStats}, keyDay(tableStats, c.Day, 0))
	t.deleteRange([]byte{tableHour}, keyHour(c.Day*24))
	t.dropEvidence(c.Evidence)
}

func (t *transition) dropEvidence(below uint64) {
	if s := &t.p.status; below > s.Evidence {
		t.deleteRange(key1(tableEvidence, s.Evidence), key1(tableEvidence, below))
		s.Evidence = below
	}
}

// expireParked turns the pending deliveries of a range into dead letters and
// drops the old dead letters. held are the events that still have one.
func (t *transition) expireParked(stamp int64, from, to uint64, failedBefore int64) (held map[uint64]bool, freed []uint64) {
	held = map[uint64]bool{}
	for _, r := range t.parkedIn(from, to) {
		if r.State != relay.Dead {
			t.unpark(r.sequence, r.webhook)
			t.p.status.Number++
			e, err := LoadHeader(t, r.sequence)
			t.keep(err)
			if e == nil {
				continue
			}
			o := &relay.Outcome{Sequence: r.sequence, Webhook: r.webhook, EventType: e.Type, AcceptedAt: r.Accepted, State: relay.Dead, Attempt: r.Attempts, Error: expiredError, StartedAt: stamp}
			t.die(stamp, o, r.Parked)
			t.result.Settled = append(t.result.Settled, o)
			held[r.sequence] = true
			continue
		}
		if f, ok := t.failureAt(r.webhook, r.Failure); ok && f.FailedAt >= failedBefore {
			held[r.sequence] = true
			continue
		}
		t.dropFailure(r.sequence, r.webhook, r.Failure)
		freed = append(freed, r.sequence)
	}
	return held, freed
}

type parkedRow struct {
	sequence uint64
	webhook  uint32
	Parked
}

func (t *transition) parkedIn(from, to uint64) (rows []parkedRow) {
	t.keep(t.Scan(key1(tableParked, from), key1(tableParked, to+1), false, func(k, v []byte) bool {
		p, err := decodeParked(v)
		t.keep(err)
		rows = append(rows, parkedRow{be64(k[1:]), be32(k[9:]), p})
		return err == nil
	}))
	return rows
}

func (t *transition) failureAt(webhook uint32, place uint64) (f relay.Failure, ok bool) {
	v, ok := t.get(keyHook(tableDead, webhook, place))
	if !ok {
		return f, false
	}
	f, err := decodeFailure(v)
	t.keep(err)
	return f, err == nil
}

func (t *transition) dropFailure(sequence uint64, webhook uint32, place uint64) {
	if f, ok := t.failureAt(webhook, place); ok {
		t.delete(keyFailure(f.ID))
	}
	t.delete(keyHook(tableDead, webhook, place))
	t.delete(keyParked(sequence, webhook))
	t.result.Dropped++
}

// deleteUnheld deletes the events from..to in the gaps between the held ones.
func (t *transition) deleteUnheld(from, to uint64, held map[uint64]bool) {
	start := from
	for sequence := from; sequence <= to; sequence++ {
		if held[sequence] {
			t.deleteEvents(start, sequence-1)
			start = sequence + 1
		}
	}
	t.deleteEvents(start, to)
}

func (t *transition) deleteEvents(from, to uint64) {
	if from > to {
		return
	}
	var ids [][]byte
	t.keep(t.Scan(key1(tableEvent, from), key1(tableEvent, to+1), false, func(_, v []byte) bool {
		d := decoder{b: v}
		e := readHeader(&d)
		ids = append(ids, keyID(e.Store, e.OrderingKey, e.ID))
		return d.err == nil
	}))
	for _, id := range ids {
		t.delete(id)
	}
	for _, table := range []byte{tableEvent, tableBody, tableOutcome} {
		t.deleteRange(key1(table, from), key1(table, to+1))
	}
}

// evict makes room before its time: evidence first, then the bodies of
// settled events. Ids, pending deliveries and dead letters stay.
func (t *transition) evict(c *Evict) {
	t.advance(c.Stamp)
	t.dropEvidence(c.Evidence)
	s := &t.p.status
	to := min(c.Bodies, s.Cursor)
	if to <= s.Bodies {
		return
	}
	start := s.Bodies + 1
	for _, r := range t.parkedIn(start, to) {
		if r.sequence >= start {
			if r.sequence > start {
				t.deleteRange(key1(tableBody, start), key1(tableBody, r.sequence))
			}
			start = r.sequence + 1
		}
	}
	if start <= to {
		t.deleteRange(key1(tableBody, start), key1(tableBody, to+1))
	}
	s.Bodies = to
}

// dropWebhook forgets a deleted webhook's dead letters.
func (t *transition) dropWebhook(c *DropWebhook) {
	t.advance(c.Stamp)
	type letter struct{ place, sequence uint64 }
	var letters []letter
	t.keep(t.Scan(keyHook(tableDead, c.Webhook, 0), keyHook(tableDead, c.Webhook, 1<<64-1), false, func(k, v []byte) bool {
		f, err := decodeFailure(v)
		t.keep(err)
		letters = append(letters, letter{be64(k[5:]), f.Sequence})
		return err == nil
	}))
	for _, l := range letters {
		if v, ok := t.get(keyParked(l.sequence, c.Webhook)); ok {
			if p, err := decodeParked(v); err == nil && p.State != relay.Dead {
				continue // on its way again: the dispatcher cancels it first
			}
		}
		t.dropFailure(l.sequence, c.Webhook, l.place)
		if l.sequence <= t.p.status.Expired && len(t.parkedIn(l.sequence, l.sequence)) == 0 {
			t.deleteEvents(l.sequence, l.sequence)
		}
	}
}
