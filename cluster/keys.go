package cluster

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/cockroachdb/pebble/v2"
)

// GroupID names a raft group. It is the first part, 4 bytes big endian, of
// every key in both databases.
type GroupID uint32

// nodeGroup is where the node keeps what belongs to no group.
const nodeGroup GroupID = 1<<32 - 1

// The log database holds, a group: 'l' index -> entry, 's' name -> raft's
// stable values, 'm' -> the newest snapshot's meta. The state database holds
// the machine's keys as they are, and under NUL the applied index.
func groupKey(g GroupID, kind byte, rest ...byte) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 5+len(rest)), uint32(g))
	return append(append(b, kind), rest...)
}

func nodeKey(kind byte) []byte { return groupKey(nodeGroup, kind) }

func logKey(g GroupID, index uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, 13), groupKey(g, 'l')...), index)
}

// span is all keys of a group: lower <= key < upper.
func span(g GroupID) (lower, upper []byte) {
	return binary.BigEndian.AppendUint32(nil, uint32(g)), binary.BigEndian.AppendUint32(nil, uint32(g)+1)
}

type getter interface {
	Get(key []byte) ([]byte, io.Closer, error)
}

// get copies the value out.
func get(r getter, key []byte) ([]byte, bool, error) {
	v, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	v = append(make([]byte, 0, len(v)), v...)
	return v, true, closer.Close()
}
