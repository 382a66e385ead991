package state

import (
	"encoding/binary"

	"github.com/omnisales/edgerelay/relay"
)

// Status is a partition's place: one row, written by every entry.
type Status struct {
	Sequence uint64 // last event's
	Number   uint64 // last outcome's
	Cursor   uint64
	Stamp    int64 // unix ms of the last entry; time never runs backwards
	Hour     uint32
	Expired  uint64 // events up to here are past their retention
	Evidence uint64 // evidence of attempts below is gone
	Bodies   uint64 // bodies of settled events up to here are gone
}

func (s *Status) encode() []byte {
	b := append(make([]byte, 0, 64), 0)
	b = binary.AppendUvarint(b, s.Sequence)
	b = binary.AppendUvarint(b, s.Number)
	b = binary.AppendUvarint(b, s.Cursor)
	b = binary.AppendVarint(b, s.Stamp)
	b = binary.AppendUvarint(b, uint64(s.Hour))
	b = binary.AppendUvarint(b, s.Expired)
	b = binary.AppendUvarint(b, s.Evidence)
	return binary.AppendUvarint(b, s.Bodies)
}

func decodeStatus(v []byte) (Status, error) {
	d := decoder{b: v}
	d.version()
	s := Status{Sequence: d.uint(), Number: d.uint(), Cursor: d.uint(), Stamp: d.sint(), Hour: d.uint32(), Expired: d.uint(), Evidence: d.uint(), Bodies: d.uint()}
	return s, d.end()
}

// version reads a row's leading version byte; 0 is the only one so far.
func (d *decoder) version() {
	if d.byte() != 0 {
		d.fail()
	}
}

// Parked is the row of a delivery that is neither fresh nor settled for good:
// it waits for a timer, stands in the backlog, or is a dead letter.
type Parked struct {
	State    relay.State // Retrying, Backlog, Replaying or Dead
	Attempts int
	Due      int64  // unix ms: its timer row, with Retrying and Replaying
	Failure  uint64 // its place in the dead-letter queue; 0 for none. Not 0 while pending: a replay
	Accepted int64  // the event's, unix ms: its statistics bucket
}

func (p *Parked) encode() []byte {
	b := append(make([]byte, 0, 32), 0, byte(p.State))
	b = binary.AppendUvarint(b, uint64(p.Attempts))
	b = binary.AppendVarint(b, p.Due)
	b = binary.AppendUvarint(b, p.Failure)
	return binary.AppendVarint(b, p.Accepted)
}

func decodeParked(v []byte) (Parked, error) {
	d := decoder{b: v}
	d.version()
	p := Parked{State: relay.State(d.byte()), Attempts: d.int(), Due: d.sint(), Failure: d.uint(), Accepted: d.sint()}
	if p.State > relay.Replaying {
		d.fail()
	}
	return p, d.end()
}

// idRow says which event an id stands for.
type idRow struct {
	sequence uint64
	digest   [DigestSize]byte
	matched  int
	created  int64
}

func (r *idRow) encode() []byte {
	b := append(make([]byte, 0, 40), 0)
	b = binary.AppendUvarint(b, r.sequence)
	b = append(b, r.digest[:]...)
	b = binary.AppendUvarint(b, uint64(r.matched))
	return binary.AppendVarint(b, r.created)
}

func decodeIDRow(v []byte) (r idRow, err error) {
	d := decoder{b: v}
	d.version()
	r.sequence = d.uint()
	copy(r.digest[:], d.take(DigestSize))
	r.matched, r.created = d.int(), d.sint()
	return r, d.end()
}

const (
	attemptFull = 1 << iota
	attemptTest
	attemptReplay
)

// appendAttempt writes a log row. Of a stored event it names the sequence
// only; id and type are read from the event's row. A test's event has no row.
func appendAttempt(b []byte, o *relay.Outcome, replay bool) []byte {
	var flags byte
	if o.Evidence != nil {
		flags |= attemptFull
	}
	if o.Test {
		flags |= attemptTest
	}
	if replay {
		flags |= attemptReplay
	}
	b = append(b, 0, byte(o.State), flags)
	b = binary.AppendUvarint(b, o.Sequence)
	b = binary.AppendUvarint(b, uint64(o.Attempt))
	b = binary.AppendUvarint(b, uint64(o.StatusCode))
	b = putString(b, o.Error)
	b = binary.AppendVarint(b, o.StartedAt)
	b = binary.AppendUvarint(b, uint64(o.DurationUS))
	b = binary.AppendVarint(b, o.NextAt)
	b = binary.AppendUvarint(b, uint64(o.ResponseBytes))
	b = putString(b, o.Node)
	if o.Test {
		b = putString(b, o.EventID)
		b = putString(b, o.EventType)
	}
	return b
}

func decodeAttempt(v []byte) (a relay.Attempt, err error) {
	d := decoder{b: v}
	d.version()
	a.State = relay.State(d.byte())
	if a.State > relay.Replaying {
		d.fail()
	}
	flags := d.byte()
	a.Full, a.Test, a.Replay = flags&attemptFull != 0, flags&attemptTest != 0, flags&attemptReplay != 0
	a.Sequence, a.Attempt, a.StatusCode, a.Error = d.uint(), d.int(), d.int(), d.string()
	a.StartedAt, a.DurationUS, a.NextAt, a.ResponseBytes, a.Node = d.sint(), int64(d.int()), d.sint(), d.int(), d.string()
	if a.Test {
		a.EventID, a.EventType = d.string(), d.string()
	}
	return a, d.end()
}

func encodeFailure(f *relay.Failure) []byte {
	b := append(make([]byte, 0, 128), 0, byte(f.State))
	b = binary.AppendUvarint(b, f.Sequence)
	b = putString(b, f.EventID)
	b = putString(b, f.EventType)
	b = putString(b, f.ID)
	b = binary.AppendUvarint(b, uint64(f.Attempts))
	b = binary.AppendUvarint(b, uint64(f.StatusCode))
	b = putString(b, f.Error)
	b = binary.AppendVarint(b, f.CreatedAt)
	return binary.AppendVarint(b, f.FailedAt)
}

func decodeFailure(v []byte) (f relay.Failure, err error) {
	d := decoder{b: v}
	d.version()
	f.State = relay.State(d.byte())
	if f.State > relay.Replaying {
		d.fail()
	}
	f.Sequence, f.EventID, f.EventType, f.ID = d.uint(), d.string(), d.string(), d.string()
	f.Attempts, f.StatusCode, f.Error, f.CreatedAt, f.FailedAt = d.int(), d.int(), d.string(), d.sint(), d.sint()
	return f, d.end()
}
