package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"
)

// logStore is raft's LogStore and StableStore of one group. Every write is
// synced; concurrent groups share the sync.
type logStore struct {
	group GroupID
	db    *pebble.DB
	fatal func(error)
	// cut says up to where the state is on disk: no entry above is dropped
	// from the front.
	cut func() uint64
	// written counts the log's bytes, for the flusher.
	written func(n int)

	mu          sync.Mutex
	first, last uint64 // 0: empty
	tail        tail
}

const entryVersion = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errCorruptEntry = errors.New("log entry fails its checksum: the disk returned other bytes than were written")

// encodeEntry writes version, type, term, time, extensions and data, and a
// CRC-32C over all of it and the index, so that an entry out of its place is
// noticed too.
func encodeEntry(b []byte, l *raft.Log) []byte {
	start := len(b)
	b = append(b, entryVersion, byte(l.Type))
	b = binary.AppendUvarint(b, l.Term)
	appended := int64(0)
	if !l.AppendedAt.IsZero() {
		appended = l.AppendedAt.UnixNano()
	}
	b = binary.AppendVarint(b, appended)
	b = binary.AppendUvarint(b, uint64(len(l.Extensions)))
	b = append(append(b, l.Extensions...), l.Data...)
	return binary.BigEndian.AppendUint32(b, entrySum(l.Index, b[start:]))
}

func entrySum(index uint64, b []byte) uint32 {
	var at [8]byte
	binary.BigEndian.PutUint64(at[:], index)
	return crc32.Update(crc32.Checksum(at[:], castagnoli), castagnoli, b)
}

func decodeEntry(index uint64, v []byte, l *raft.Log) error {
	if len(v) < 9 || v[0] != entryVersion {
		return errCorruptEntry
	}
	body, sum := v[:len(v)-4], binary.BigEndian.Uint32(v[len(v)-4:])
	if entrySum(index, body) != sum {
		return errCorruptEntry
	}
	*l = raft.Log{Index: index, Type: raft.LogType(body[1])}
	rest := body[2:]
	var n int
	if l.Term, n = binary.Uvarint(rest); n <= 0 {
		return errCorruptEntry
	}
	rest = rest[n:]
	appended, n := binary.Varint(rest)
	if n <= 0 {
		return errCorruptEntry
	}
	rest = rest[n:]
	size, n := binary.Uvarint(rest)
	if n <= 0 || size > uint64(len(rest)-n) {
		return errCorruptEntry
	}
	rest = rest[n:]
	if appended != 0 {
		l.AppendedAt = time.Unix(0, appended)
	}
	if size > 0 {
		l.Extensions = rest[:size:size]
	}
	l.Data = rest[size:]
	return nil
}

// openLogStore finds the ends of the group's log.
func openLogStore(s *logStore) (*logStore, error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: logKey(s.group, 0), UpperBound: groupKey(s.group, 'l'+1)})
	if err != nil {
		return nil, err
	}
	if it.First() {
		s.first = binary.BigEndian.Uint64(it.Key()[5:])
	}
	if it.Last() {
		s.last = binary.BigEndian.Uint64(it.Key()[5:])
	}
	return s, it.Close()
}

func (s *logStore) FirstIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first, nil
}

func (s *logStore) LastIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, nil
}

func (s *logStore) GetLog(index uint64, l *raft.Log) error {
	s.mu.Lock()
	cached := s.tail.get(index)
	s.mu.Unlock()
	if cached != nil {
		*l = *cached
		return nil
	}
	v, ok, err := get(s.db, logKey(s.group, index))
	if err != nil {
		return fmt.Errorf("read log entry %d: %w", index, err)
	}
	if !ok {
		return raft.ErrLogNotFound
	}
	return decodeEntry(index, v, l)
}

func (s *logStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs returns when the entries are on disk. A failure ends the process:
// after a failed sync nobody knows what the disk holds.
func (s *logStore) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	size := 0
	for _, l := range logs {
		size += len(l.Data) + 64
	}
	b := s.db.NewBatchWithSize(size)
	buf := make([]byte, 0, size)
	for _, l := range logs {
		buf = encodeEntry(buf[:0], l)
		if err := b.Set(logKey(s.group, l.Index), buf, nil); err != nil {
			return s.fail(err)
		}
	}
	if err := b.Commit(pebble.Sync); err != nil {
		return s.fail(err)
	}
	s.mu.Lock()
	if s.first == 0 {
		s.first = logs[0].Index
	}
	s.last = logs[len(logs)-1].Index
	s.tail.add(logs)
	s.mu.Unlock()
	s.written(size)
	return nil
}

func (s *logStore) fail(err error) error {
	err = fmt.Errorf("write log of group %d: %w", s.group, err)
	s.fatal(err)
	return err
}

// DeleteRange deletes min..max: the front after a snapshot, or the end where a
// new leader's log differs. The front only up to what of the state is on disk.
func (s *logStore) DeleteRange(min, max uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first == 0 || min > max {
		return nil
	}
	suffix := max >= s.last
	if cut := s.cut(); !suffix && max > cut {
		return fmt.Errorf("refuse to cut the log of group %d at %d: the state on disk stands at %d", s.group, max, cut)
	}
	if err := s.db.DeleteRange(logKey(s.group, min), logKey(s.group, max+1), pebble.Sync); err != nil {
		return s.fail(err)
	}
	s.tail.drop(min, max)
	switch {
	case suffix && min <= s.first:
		s.first, s.last = 0, 0
	case suffix:
		s.last = min - 1
	case min <= s.first:
		s.first = max + 1
	}
	return nil
}

// IsMonotonic tells raft that the log has no gaps.
func (s *logStore) IsMonotonic() bool { return true }

// keep is how many of the newest entries the tail holds: what a replica that
// fell a little behind can still be sent without reading the disk.
func (s *logStore) keep() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return uint64(len(s.tail.logs))
}

func (s *logStore) Set(key, value []byte) error {
	if err := s.db.Set(groupKey(s.group, 's', key...), value, pebble.Sync); err != nil {
		return s.fail(err)
	}
	return nil
}

// Get returns an empty value where there is none, as raft wants it.
func (s *logStore) Get(key []byte) ([]byte, error) {
	v, _, err := get(s.db, groupKey(s.group, 's', key...))
	return v, err
}

func (s *logStore) SetUint64(key []byte, value uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

func (s *logStore) GetUint64(key []byte) (uint64, error) {
	v, err := s.Get(key)
	if err != nil || len(v) != 8 {
		return 0, err
	}
	return binary.BigEndian.Uint64(v), nil
}

// tail holds the newest entries, at most tailBytes of them.
type tail struct {
	logs  []*raft.Log // contiguous
	bytes int
}

const tailBytes = 4 << 20

func (t *tail) get(index uint64) *raft.Log {
	if len(t.logs) == 0 || index < t.logs[0].Index || index > t.logs[len(t.logs)-1].Index {
		return nil
	}
	return t.logs[index-t.logs[0].Index]
}

func (t *tail) add(logs []*raft.Log) {
	if n := len(t.logs); n > 0 && t.logs[n-1].Index+1 != logs[0].Index {
		t.logs, t.bytes = nil, 0
	}
	for _, l := range logs {
		t.logs = append(t.logs, l)
		t.bytes += len(l.Data) + 128
	}
	i := 0
	for ; t.bytes > tailBytes && i < len(t.logs)-1; i++ {
		t.bytes -= len(t.logs[i].Data) + 128
		t.logs[i] = nil
	}
	t.logs = t.logs[i:]
}

// drop forgets everything where the range touches it: simple, and rare.
func (t *tail) drop(min, max uint64) {
	if n := len(t.logs); n > 0 && max >= t.logs[0].Index && min <= t.logs[n-1].Index {
		t.logs, t.bytes = nil, 0
	}
}
