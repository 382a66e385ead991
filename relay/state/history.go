package state

import (
	"github.com/omnisales/edgerelay/relay"
)

// Attempts calls fn for a webhook's attempts, newest first, with numbers
// below before (0: from the newest) and not older than since (unix ms), until
// fn returns false. Id and type of stored events are filled in.
func Attempts(r Reader, webhook uint32, before uint64, since int64, fn func(*relay.Attempt) bool) error {
	status, err := LoadStatus(r)
	if err != nil {
		return err
	}
	if before == 0 {
		before = 1<<64 - 1
	}
	// Events are shared by neighbouring attempts: remember the last ones.
	events := map[uint64]*relay.Event{}
	first, ok, err := firstDay(r)
	if err != nil || !ok {
		return err
	}
	first = max(first, dayOf(since))
	for day := dayOf(status.Stamp); day >= first; day-- {
		more, err := attemptsOfDay(r, day, webhook, before, events, fn)
		if err != nil || !more || day == 0 {
			return err
		}
	}
	return nil
}

func firstDay(r Reader) (day uint32, ok bool, err error) {
	err = r.Scan([]byte{tableAttempt}, []byte{tableAttempt + 1}, false, func(k, _ []byte) bool {
		day, ok = be32(k[1:]), true
		return false
	})
	return day, ok, err
}

func attemptsOfDay(r Reader, day, webhook uint32, before uint64, events map[uint64]*relay.Event, fn func(*relay.Attempt) bool) (more bool, err error) {
	more = true
	var fault error
	err = r.Scan(keyAttempt(day, webhook, 0), keyAttempt(day, webhook, before), true, func(k, v []byte) bool {
		a, err := decodeAttempt(v)
		if fault = err; err != nil {
			return false
		}
		a.Number, a.Webhook = be64(k[9:]), webhook
		if !a.Test {
			if fault = nameEvent(r, events, &a); fault != nil {
				return false
			}
		}
		more = fn(&a)
		return more
	})
	return more, firstError(err, fault)
}

func nameEvent(r Reader, events map[uint64]*relay.Event, a *relay.Attempt) error {
	e, ok := events[a.Sequence]
	if !ok {
		var err error
		if e, err = LoadHeader(r, a.Sequence); err != nil {
			return err
		}
		if len(events) > 256 {
			clear(events)
		}
		events[a.Sequence] = e
	}
	if e != nil {
		a.EventID, a.EventType, a.OrderingKey = e.ID, e.Type, e.OrderingKey
	}
	return nil
}

// LoadEvidence reads an attempt's evidence; nil where there is none.
func LoadEvidence(r Reader, number uint64) ([]byte, error) {
	v, _, err := r.Get(key1(tableEvidence, number))
	return v, err
}

// Failures calls fn for a webhook's dead-letter queue, newest first, with
// numbers below before (0: from the newest), until fn returns false.
func Failures(r Reader, webhook uint32, before uint64, fn func(*relay.Failure) bool) error {
	if before == 0 {
		before = 1<<64 - 1
	}
	var fault error
	err := r.Scan(keyHook(tableDead, webhook, 0), keyHook(tableDead, webhook, before), true, func(k, v []byte) bool {
		f, err := decodeFailure(v)
		if fault = err; err != nil {
			return false
		}
		f.Number, f.Webhook = be64(k[5:]), webhook
		return fn(&f)
	})
	return firstError(err, fault)
}

// LoadFailure finds a webhook's failure by its id; nil where there is none.
func LoadFailure(r Reader, webhook uint32, id string) (*relay.Failure, error) {
	v, ok, err := r.Get(keyFailure(id))
	if err != nil || !ok || len(v) != 12 || be32(v) != webhook {
		return nil, err
	}
	row, ok, err := r.Get(keyHook(tableDead, webhook, be64(v[4:])))
	if err != nil || !ok {
		return nil, err
	}
	f, err := decodeFailure(row)
	f.Number, f.Webhook = be64(v[4:]), webhook
	return &f, err
}

// Slot is a webhook's numbers over five minutes.
type Slot struct {
	Start int64 // unix ms
	Counters
}

// SlotMS is the length of a slot in milliseconds.
const SlotMS = slotMS

// Stats reads a webhook's slots from..to (unix ms), oldest first; slots with
// nothing in them are left out.
func Stats(r Reader, webhook uint32, from, to int64) (slots []Slot, err error) {
	var fault error
	for day := dayOf(from); day <= dayOf(to); day++ {
		err = r.Scan(keyStats(day, webhook, 0), keyDay(tableStats, day, webhook+1), false, func(k, v []byte) bool {
			start := int64(day)*dayMS + int64(uint16(k[9])<<8|uint16(k[10]))*slotMS
			if start+slotMS <= from || start > to {
				return true
			}
			s := Slot{Start: start, Counters: Counters{}}
			fault = s.addEncoded(v)
			slots = append(slots, s)
			return fault == nil
		})
		if err = firstError(err, fault); err != nil {
			return nil, err
		}
	}
	return slots, nil
}

// Add adds other's numbers to c.
func (c Counters) Add(other Counters) {
	for k, n := range other {
		c[k] += n
	}
}

// Before finds the first sequence and attempt number of the hour in which at
// (unix ms) lies, or of the next one that has any; ok is false where nothing
// is that young.
func Before(r Reader, at int64) (sequence, number uint64, ok bool, err error) {
	var fault error
	err = r.Scan(keyHour(hourOf(at)), []byte{tableHour + 1}, false, func(_, v []byte) bool {
		h, err := decodeHour(v)
		sequence, number, ok, fault = h.sequence, h.number, err == nil, err
		return false
	})
	return sequence, number, ok, firstError(err, fault)
}

// ParkedAfter reads at most limit sequences above after that have a parked
// delivery, ascending: what a sweep of old dead letters visits.
func ParkedAfter(r Reader, after uint64, limit int) (sequences []uint64, err error) {
	err = r.Scan(key1(tableParked, after+1), []byte{tableParked + 1}, false, func(k, _ []byte) bool {
		if s := be64(k[1:]); len(sequences) == 0 || sequences[len(sequences)-1] != s {
			sequences = append(sequences, s)
		}
		return len(sequences) < limit
	})
	return sequences, err
}

// HasFailures says whether a webhook has anything in its dead-letter queue.
func HasFailures(r Reader, webhook uint32) (found bool, err error) {
	err = r.Scan(keyHook(tableDead, webhook, 0), keyHook(tableDead, webhook+1, 0), false, func(_, _ []byte) bool {
		found = true
		return false
	})
	return found, err
}

// EvidenceSpan is where the evidence stands: lower <= key < upper.
func EvidenceSpan() (lower, upper []byte) {
	return []byte{tableEvidence}, []byte{tableEvidence + 1}
}
