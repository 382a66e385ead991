package cluster

import (
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"
)

// Entry is a committed proposal.
type Entry struct {
	Index, Term uint64
	Data        []byte
}

// Machine is a group's state machine. Its methods are called by one goroutine.
type Machine interface {
	// Apply writes what the entries do into the batch, which becomes one
	// step together with the index of the last. A result an entry; it must
	// depend on nothing but state and entries. An error ends the process.
	Apply(b *Batch, entries []Entry) ([]any, error)
	// Applied is called when the batch is in the state.
	Applied(entries []Entry, results []any)
	// Restored is called when the state was replaced by a snapshot.
	Restored() error
}

// pebbleReader is what a database, a batch and a snapshot have in common.
type pebbleReader interface {
	getter
	NewIter(o *pebble.IterOptions) (*pebble.Iterator, error)
}

// View reads a group's keys. Each call sees the state of its moment.
type View struct {
	group GroupID
	r     pebbleReader
}

// Get returns a copy of the value.
func (v View) Get(key []byte) ([]byte, bool, error) {
	var buf [96]byte
	return get(v.r, v.key(buf[:0], key))
}

func (v View) key(buf, key []byte) []byte {
	return append(binary.BigEndian.AppendUint32(buf, uint32(v.group)), key...)
}

// Scan calls fn for lower <= key < upper (nil: to the end), descending if
// reverse, until fn returns false. Key and value die with the call.
func (v View) Scan(lower, upper []byte, reverse bool, fn func(key, value []byte) bool) error {
	from := v.key(nil, lower)
	var to []byte
	if upper == nil {
		_, to = span(v.group)
	} else {
		to = v.key(nil, upper)
	}
	it, err := v.r.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return err
	}
	step, ok := it.Next, false
	if reverse {
		step, ok = it.Prev, it.Last()
	} else {
		ok = it.First()
	}
	for ; ok; ok = step() {
		value, err := it.ValueAndErr()
		if err != nil {
			_ = it.Close()
			return err
		}
		if !fn(it.Key()[4:], value) {
			break
		}
	}
	return it.Close()
}

// Batch is a View that reads its own writes.
type Batch struct {
	View
	b   *pebble.Batch
	key []byte
}

func newBatch(db *pebble.DB, g GroupID) *Batch {
	b := db.NewIndexedBatch()
	return &Batch{View: View{g, b}, b: b}
}

// in puts the group before a key; the result dies with the next call.
func (b *Batch) in(key []byte) []byte {
	b.key = b.View.key(b.key[:0], key)
	return b.key
}

// Get returns a copy of the value.
func (b *Batch) Get(key []byte) ([]byte, bool, error) { return get(b.b, b.in(key)) }

// Set writes a value.
func (b *Batch) Set(key, value []byte) error { return b.b.Set(b.in(key), value, nil) }

// Delete deletes a key.
func (b *Batch) Delete(key []byte) error { return b.b.Delete(b.in(key), nil) }

// Merge adds a value to the key's by the node's Merge.
func (b *Batch) Merge(key, value []byte) error { return b.b.Merge(b.in(key), value, nil) }

// DeleteRange deletes lower <= key < upper.
func (b *Batch) DeleteRange(lower, upper []byte) error {
	return b.b.DeleteRange(b.View.key(nil, lower), b.View.key(nil, upper), nil)
}
