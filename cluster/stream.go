package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A group's snapshot on the wire: streamMagic; a record a key, in order:
// length of the key + 1 (varint), key without its group, length of the value
// (varint), value; a zero; CRC-32C over all before it, big endian. The applied
// index travels as the key that it is.
const streamMagic = "edgerelay group snapshot 1\n"

const (
	streamChunk = 256 << 10
	partBytes   = 64 << 20
	maxRecord   = 64 << 20
)

// sender reads a group's span from a Pebble snapshot as a stream.
type sender struct {
	snapshot *pebble.Snapshot
	it       *pebble.Iterator
	valid    bool
	buf      []byte // made, not yet read
	rest     []byte
	sum      uint32
	ended    bool
}

// sendSnapshot opens the stream. Raft must know its length beforehand, so the
// span is read twice.
func sendSnapshot(g *Group) (io.ReadCloser, int64, error) {
	snapshot := g.node.state.NewSnapshot()
	count, err := newSender(g.id, snapshot)
	if err != nil {
		return nil, 0, errors.Join(err, snapshot.Close())
	}
	size, err := io.Copy(io.Discard, count)
	if err := errors.Join(err, count.it.Close()); err != nil {
		return nil, 0, errors.Join(fmt.Errorf("measure snapshot: %w", err), snapshot.Close())
	}
	s, err := newSender(g.id, snapshot)
	if err != nil {
		return nil, 0, errors.Join(err, snapshot.Close())
	}
	return s, size, nil
}

func newSender(id GroupID, snapshot *pebble.Snapshot) (*sender, error) {
	lower, upper := span(id)
	it, err := snapshot.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, err
	}
	s := &sender{snapshot: snapshot, it: it, buf: make([]byte, 0, streamChunk)}
	s.valid = it.First()
	s.rest = append(s.buf, streamMagic...)
	s.sum = crc32.Checksum(s.rest, castagnoli)
	return s, nil
}

func (s *sender) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		if s.ended {
			return 0, io.EOF
		}
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *sender) fill() error {
	b := s.buf[:0]
	for ; s.valid && len(b) < streamChunk; s.valid = s.it.Next() {
		value, err := s.it.ValueAndErr()
		if err != nil {
			return err
		}
		key := s.it.Key()[4:]
		b = append(binary.AppendUvarint(b, uint64(len(key))+1), key...)
		b = append(binary.AppendUvarint(b, uint64(len(value))), value...)
	}
	if !s.valid && len(b) < streamChunk {
		if err := s.it.Error(); err != nil {
			return err
		}
		b = append(b, 0)
		s.ended = true
	}
	s.sum = crc32.Update(s.sum, castagnoli, b)
	if s.ended {
		b = binary.BigEndian.AppendUint32(b, s.sum)
	}
	s.buf, s.rest = b, b
	return nil
}

func (s *sender) Close() error { return errors.Join(s.it.Close(), s.snapshot.Close()) }

// receiver turns a stream into SSTs beside the state database.
type receiver struct {
	g       *Group
	meta    *snapshotMeta
	buf     []byte
	sum     uint32
	started bool
	ended   bool
	w       *sstable.Writer
	written int
}

func newReceiver(g *Group, m *snapshotMeta) *receiver { return &receiver{g: g, meta: m} }

var errStream = errors.New("snapshot stream is malformed")

// write takes the next bytes of the stream, cut anywhere.
func (r *receiver) write(p []byte) (int, error) {
	r.buf = append(r.buf, p...)
	if !r.started {
		if len(r.buf) < len(streamMagic) {
			return len(p), nil
		}
		if !strings.HasPrefix(string(r.buf), streamMagic) {
			return 0, errStream
		}
		r.consume(len(streamMagic))
		r.started = true
	}
	for !r.ended {
		n, err := r.record()
		if err != nil {
			return 0, err
		}
		if n == 0 {
			break
		}
	}
	if len(r.buf) > maxRecord || r.ended && len(r.buf) > 4 {
		return 0, errStream
	}
	return len(p), nil
}

func (r *receiver) consume(n int) {
	r.sum = crc32.Update(r.sum, castagnoli, r.buf[:n])
	r.buf = r.buf[n:]
}

// record takes one whole record; 0 means that more bytes are needed.
func (r *receiver) record() (int, error) {
	keySize, n := binary.Uvarint(r.buf)
	if n <= 0 {
		return 0, nil
	}
	if keySize == 0 {
		r.consume(n)
		r.ended = true
		return n, nil
	}
	if keySize > maxRecord {
		return 0, errStream
	}
	keyEnd := n + int(keySize) - 1
	if len(r.buf) < keyEnd {
		return 0, nil
	}
	valueSize, m := binary.Uvarint(r.buf[keyEnd:])
	if m <= 0 {
		return 0, nil
	}
	if valueSize > maxRecord {
		return 0, errStream
	}
	end := keyEnd + m + int(valueSize)
	if len(r.buf) < end {
		return 0, nil
	}
	if err := r.put(r.buf[n:keyEnd], r.buf[keyEnd+m:end]); err != nil {
		return 0, err
	}
	r.consume(end)
	return end, nil
}

func (r *receiver) put(key, value []byte) error {
	if r.w == nil {
		if err := r.open(); err != nil {
			return err
		}
	}
	if string(key) == string(appliedKey()) {
		a, err := readApplied(View{r.g.id, oneRow{value}})
		if err != nil {
			return err
		}
		r.meta.Applied = a.index
	}
	full := append(groupKey(r.g.id, 0)[:4:4], key...)
	if err := r.w.Set(full, value); err != nil {
		return fmt.Errorf("write received snapshot: %w", err)
	}
	if r.written += len(full) + len(value); r.written >= partBytes {
		return r.closePart()
	}
	return nil
}

// oneRow answers every Get with one value.
type oneRow struct{ value []byte }

func (o oneRow) Get([]byte) ([]byte, io.Closer, error) { return o.value, io.NopCloser(nil), nil }

func (oneRow) NewIter(*pebble.IterOptions) (*pebble.Iterator, error) { return nil, errStream }

func (r *receiver) open() error {
	fs := r.g.node.opt.FS
	name := fmt.Sprintf("%d-%s-%d.sst", r.g.id, r.meta.id(), len(r.meta.Parts))
	file, err := fs.Create(r.g.node.part(name), vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("make part of received snapshot: %w", err)
	}
	o := r.g.node.stateOptions()
	o.EnsureDefaults()
	r.w = sstable.NewWriter(objstorageprovider.NewFileWritable(file), o.MakeWriterOptions(6, r.g.node.state.TableFormat()))
	r.meta.Parts = append(r.meta.Parts, name)
	r.written = 0
	return nil
}

func (r *receiver) closePart() error {
	w := r.w
	r.w = nil
	if err := w.Close(); err != nil {
		return fmt.Errorf("close part of received snapshot: %w", err)
	}
	return nil
}

// finish checks that the stream is whole and that its parts are on disk.
func (r *receiver) finish() error {
	if !r.ended || len(r.buf) != 4 || binary.BigEndian.Uint32(r.buf) != r.sum || len(r.meta.Parts) == 0 {
		return errors.Join(errStream, r.drop())
	}
	if r.w != nil {
		if err := r.closePart(); err != nil {
			return err
		}
	}
	fs := r.g.node.opt.FS
	dir, err := fs.OpenDir(r.g.node.receivedDir())
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (r *receiver) drop() error {
	var err error
	if r.w != nil {
		err = r.closePart()
	}
	for _, name := range r.meta.Parts {
		err = errors.Join(err, r.g.node.opt.FS.Remove(r.g.node.part(name)))
	}
	return err
}

func (n *Node) receivedDir() string { return n.opt.FS.PathJoin(n.opt.Dir, "received") }

func (n *Node) part(name string) string { return n.opt.FS.PathJoin(n.receivedDir(), name) }

// install puts a received snapshot in the place of the group's state, in one
// step. It may run again after a crash: the parts go only when they are in.
func (s *snapshotStore) install() error {
	s.mu.Lock()
	m := s.meta
	s.mu.Unlock()
	if m == nil || len(m.Parts) == 0 {
		return nil
	}
	n := s.g.node
	paths := make([]string, len(m.Parts))
	there := 0
	for i, name := range m.Parts {
		paths[i] = n.part(name)
		if _, err := n.opt.FS.Stat(paths[i]); err == nil {
			there++
		}
	}
	switch {
	case there == len(paths):
		lower, upper := span(s.g.id)
		if _, err := n.state.IngestAndExcise(context.Background(), paths, nil, nil, pebble.KeyRange{Start: lower, End: upper}); err != nil {
			return fmt.Errorf("install received snapshot: %w", err)
		}
	case !s.installed(m):
		return fmt.Errorf("received snapshot of group %d is incomplete: remove this replica and add it anew", s.g.id)
	}
	done := *m
	done.Parts = nil
	return s.put(&done)
}

// installed says whether the state is at least the snapshot's.
func (s *snapshotStore) installed(m *snapshotMeta) bool {
	a, err := readApplied(s.g.View())
	return err == nil && a.index >= m.Applied
}

// sweep removes the parts that no snapshot names: a transfer that was cut off.
func (s *snapshotStore) sweep() error {
	fs := s.g.node.opt.FS
	names, err := fs.List(s.g.node.receivedDir())
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, fmt.Sprintf("%d-", s.g.id)) {
			err = errors.Join(err, fs.Remove(s.g.node.part(name)))
		}
	}
	return err
}
