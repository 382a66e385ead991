package state

import (
	"encoding/binary"

	"github.com/omnisales/edgerelay/relay"
)

// settle records outcomes. One of a fresh delivery counts only above the
// cursor, one of a parked delivery only while its row is there: what was
// settled meanwhile, by expiry say, stays as it is.
func (t *transition) settle(term uint64, c *Settle) {
	stamp := t.advance(c.Stamp)
	if c.Term != term {
		return
	}
	ends := endings{}
	for _, o := range c.Outcomes {
		t.settleOne(stamp, o, &ends)
	}
	for _, e := range ends {
		t.set(keyOutcome(e.sequence, e.number), e.value)
	}
	t.p.status.Cursor = max(t.p.status.Cursor, min(c.Cursor, t.p.status.Sequence))
}

// endings gathers the final outcomes of an entry by event, in the order in
// which the events first came: a fan-out costs a row an entry, not a row each.
type endings []ending

type ending struct {
	sequence, number uint64
	value            []byte
}

func (e *endings) add(number uint64, o *relay.Outcome) {
	i := len(*e) - 1
	for ; i >= 0 && (*e)[i].sequence != o.Sequence; i-- {
		if i < len(*e)-64 { // far back: a row of its own is cheaper than the search
			i = -1
			break
		}
	}
	if i < 0 {
		*e = append(*e, ending{o.Sequence, number, append(make([]byte, 0, 64), 0)})
		i = len(*e) - 1
	}
	b := binary.AppendUvarint((*e)[i].value, uint64(o.Webhook))
	b = append(b, byte(o.State))
	b = binary.AppendUvarint(b, uint64(o.Attempt))
	(*e)[i].value = binary.AppendUvarint(b, uint64(o.StatusCode))
}

func (t *transition) settleOne(stamp int64, o *relay.Outcome, ends *endings) {
	var was Parked
	switch {
	case o.Test:
	case o.Parked:
		var ok bool
		if was, ok = t.unpark(o.Sequence, o.Webhook); !ok {
			return
		}
	case o.Sequence <= t.p.status.Cursor:
		return
	}
	t.p.status.Number++
	replay := was.Failure != 0
	t.log(stamp, o, replay)
	if o.Test {
		t.result.Settled = append(t.result.Settled, o)
		return
	}
	switch o.State {
	case relay.Retrying, relay.Backlog, relay.Replaying:
		t.park(o.Sequence, o.Webhook, Parked{State: o.State, Attempts: max(o.Attempt, was.Attempts), Due: o.NextAt, Failure: was.Failure, Accepted: o.AcceptedAt})
	case relay.Dead:
		t.die(stamp, o, was)
		ends.add(t.p.status.Number, o)
	default:
		if replay {
			t.setFailure(o.Webhook, was.Failure, func(f *relay.Failure) { f.State = relay.Succeeded })
		}
		t.countState(o.Webhook, o.AcceptedAt, o.State, o.EventType, 1)
		ends.add(t.p.status.Number, o)
	}
	t.result.Settled = append(t.result.Settled, o)
}

// log writes the attempt's row, its evidence and its numbers.
func (t *transition) log(stamp int64, o *relay.Outcome, replay bool) {
	if o.Attempt == 0 && !o.Test {
		return
	}
	number := t.p.status.Number
	t.set(keyAttempt(dayOf(stamp), o.Webhook, number), appendAttempt(make([]byte, 0, 64), o, replay))
	if o.Evidence != nil {
		t.set(key1(tableEvidence, number), o.Evidence)
	}
	if o.Test {
		return
	}
	t.count(o.Webhook, stamp, Counter{Kind: CountAttempts}, 1)
	t.count(o.Webhook, stamp, Counter{Kind: CountDuration}, o.DurationUS)
	t.count(o.Webhook, stamp, Counter{Kind: CountCode, Arg: uint32(o.StatusCode)}, 1)
	t.count(o.Webhook, stamp, Counter{Kind: CountLatency, Arg: latencyBucket(o.DurationUS)}, 1)
}

// park gives a pending delivery a row of its own, and a timer or a place in
// the backlog.
func (t *transition) park(sequence uint64, webhook uint32, p Parked) {
	t.set(keyParked(sequence, webhook), p.encode())
	if p.State == relay.Backlog {
		t.set(keyHook(tableBacklog, webhook, sequence), binary.AppendUvarint([]byte{0}, uint64(p.Attempts)))
		return
	}
	t.set(keyTimer(p.Due, sequence, webhook), nil)
	t.result.Timers = append(t.result.Timers, Timer{p.Due, sequence, webhook})
}

// unpark takes a pending delivery's rows away; ok is false where it was not
// parked, or is dead.
func (t *transition) unpark(sequence uint64, webhook uint32) (Parked, bool) {
	v, ok := t.get(keyParked(sequence, webhook))
	if !ok {
		return Parked{}, false
	}
	p, err := decodeParked(v)
	t.keep(err)
	if p.State == relay.Dead {
		return p, false
	}
	t.delete(keyParked(sequence, webhook))
	if p.State == relay.Backlog {
		t.delete(keyHook(tableBacklog, webhook, sequence))
	} else {
		t.delete(keyTimer(p.Due, sequence, webhook))
	}
	return p, true
}

// die puts a delivery into the dead-letter queue; one that was replayed
// returns to its place there.
func (t *transition) die(stamp int64, o *relay.Outcome, was Parked) {
	place := was.Failure
	if place == 0 {
		place = t.p.status.Number
		e, err := LoadHeader(t, o.Sequence)
		t.keep(err)
		if e == nil {
			return
		}
		f := relay.Failure{ID: relay.FailureID(e.Store, e.OrderingKey, e.ID, o.Webhook), Sequence: o.Sequence, EventID: e.ID, EventType: e.Type, CreatedAt: e.CreatedAt}
		t.set(keyHook(tableDead, o.Webhook, place), encodeFailure(&f))
		t.set(keyFailure(f.ID), binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, o.Webhook), place))
	}
	t.setFailure(o.Webhook, place, func(f *relay.Failure) {
		f.State, f.FailedAt = relay.Dead, stamp
		if o.Attempt > 0 || f.Error == "" {
			f.Attempts, f.StatusCode, f.Error = o.Attempt, o.StatusCode, o.Error
		}
	})
	dead := Parked{State: relay.Dead, Attempts: o.Attempt, Failure: place, Accepted: o.AcceptedAt}
	t.set(keyParked(o.Sequence, o.Webhook), dead.encode())
	t.countState(o.Webhook, o.AcceptedAt, relay.Dead, o.EventType, 1)
}

func (t *transition) setFailure(webhook uint32, place uint64, change func(*relay.Failure)) {
	key := keyHook(tableDead, webhook, place)
	v, ok := t.get(key)
	if !ok {
		return
	}
	f, err := decodeFailure(v)
	t.keep(err)
	change(&f)
	t.set(key, encodeFailure(&f))
}

// replay sends dead letters out again, due at once; the others it leaves.
func (t *transition) replay(c *Replay) {
	stamp := t.advance(c.Stamp)
	for _, id := range c.Failures {
		v, ok := t.get(keyFailure(id))
		if !ok || len(v) != 12 || be32(v) != c.Webhook {
			continue
		}
		place := be64(v[4:])
		row, ok := t.get(keyHook(tableDead, c.Webhook, place))
		if !ok {
			continue
		}
		f, err := decodeFailure(row)
		t.keep(err)
		if f.State != relay.Dead {
			continue
		}
		t.revive(stamp, c.Webhook, place, &f)
	}
}

func (t *transition) revive(stamp int64, webhook uint32, place uint64, f *relay.Failure) {
	v, ok := t.get(keyParked(f.Sequence, webhook))
	if !ok {
		return
	}
	was, err := decodeParked(v)
	t.keep(err)
	f.State = relay.Replaying
	t.set(keyHook(tableDead, webhook, place), encodeFailure(f))
	t.park(f.Sequence, webhook, Parked{State: relay.Replaying, Due: stamp, Failure: place, Accepted: was.Accepted})
	t.countState(webhook, was.Accepted, relay.Dead, f.EventType, -1)
	t.result.Replayed++
}
