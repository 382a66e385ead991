package state

import (
	"cmp"
	"fmt"
	"slices"

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
	all, err := deliveriesOf(r, []*relay.Event{e})
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// deliveriesOf tells it of events in ascending order, which should stand
// close together: their rows are read in two scans.
func deliveriesOf(r Reader, events []*relay.Event) ([][]Delivery, error) {
	out := make([][]Delivery, len(events))
	for i, e := range events {
		out[i] = make([]Delivery, len(e.Targets))
		for j, t := range e.Targets {
			out[i][j].Webhook = t.Webhook
		}
	}
	find := func(sequence uint64, webhook uint32) *Delivery {
		i, ok := slices.BinarySearchFunc(events, sequence, func(e *relay.Event, s uint64) int { return cmp.Compare(e.Sequence, s) })
		if !ok {
			return nil
		}
		j := slices.IndexFunc(out[i], func(d Delivery) bool { return d.Webhook == webhook })
		if j < 0 {
			return nil
		}
		return &out[i][j]
	}
	first, last := events[0].Sequence, events[len(events)-1].Sequence
	var fault error
	err := r.Scan(keyOutcome(first, 0), key1(tableOutcome, last+1), false, func(k, v []byte) bool {
		fault = eachEnding(v, func(d Delivery) {
			if at := find(be64(k[1:]), d.Webhook); at != nil {
				*at = d
			}
		})
		return fault == nil
	})
	if err = firstError(err, fault); err != nil {
		return nil, err
	}
	err = r.Scan(keyParked(first, 0), key1(tableParked, last+1), false, func(k, v []byte) bool {
		p, err := decodeParked(v)
		fault = err
		if at := find(be64(k[1:]), be32(k[9:])); at != nil && err == nil {
			at.State, at.Attempts = p.State, p.Attempts
			if p.State == relay.Retrying {
				at.NextAt = p.Due
			}
		}
		return err == nil
	})
	return out, firstError(err, fault)
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
