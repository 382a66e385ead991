package state

import "encoding/binary"

// Reader is what the state needs to read: the keys of one group.
type Reader interface {
	// Get returns a copy of the value.
	Get(key []byte) (value []byte, ok bool, err error)
	// Scan calls fn for lower <= key < upper (nil: to the end), descending
	// if reverse, until fn returns false. Key and value die with the call.
	Scan(lower, upper []byte, reverse bool, fn func(key, value []byte) bool) error
}

// Writer is a batch: it reads its own writes.
type Writer interface {
	Reader
	Set(key, value []byte) error
	Delete(key []byte) error
	DeleteRange(lower, upper []byte) error
	Merge(key, value []byte) error
}

// The tables of a partition. Keys are one byte of table and big-endian
// numbers, so that they sort as the numbers do. (The cluster puts the group
// before them.)
const (
	tableStatus   byte = 'c' // -> status
	tableID       byte = 'i' // store u32, id, NUL, ordering key -> sequence, digest, matched
	tableEvent    byte = 'e' // sequence -> header
	tableBody     byte = 'b' // sequence -> canonical data
	tableOutcome  byte = 'o' // sequence, attempt number -> outcomes of one entry
	tableParked   byte = 'p' // sequence, webhook -> parked
	tableTimer    byte = 't' // due ms, sequence, webhook -> nothing
	tableBacklog  byte = 'q' // webhook, sequence -> attempts
	tableDead     byte = 'd' // webhook, number -> failure
	tableFailure  byte = 'f' // failure id -> webhook, number
	tableAttempt  byte = 'a' // day, webhook, attempt number -> attempt
	tableEvidence byte = 'v' // attempt number -> evidence
	tableStats    byte = 's' // day, webhook, slot u16 -> counters
	tableHour     byte = 'h' // hour -> first sequence, first attempt number
)

// The tables of the meta group.
const (
	tableMeta    byte = 'M' // -> meta status
	tableWebhook byte = 'w' // store u32, ordinal u32 -> webhook
	tableUUID    byte = 'u' // store u32, uuid -> ordinal
	tableDropped byte = 'x' // ordinal -> deleted at, uuid
)

func key1(table byte, a uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, 9), table), a)
}

func keyHook(table byte, webhook uint32, n uint64) []byte {
	b := binary.BigEndian.AppendUint32(append(make([]byte, 0, 13), table), webhook)
	return binary.BigEndian.AppendUint64(b, n)
}

func keyParked(sequence uint64, webhook uint32) []byte {
	return binary.BigEndian.AppendUint32(append(make([]byte, 0, 13), key1(tableParked, sequence)...), webhook)
}

func keyOutcome(sequence, number uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, 17), key1(tableOutcome, sequence)...), number)
}

func keyTimer(due int64, sequence uint64, webhook uint32) []byte {
	b := append(make([]byte, 0, 21), key1(tableTimer, uint64(due))...)
	b = binary.BigEndian.AppendUint64(b, sequence)
	return binary.BigEndian.AppendUint32(b, webhook)
}

func keyDay(table byte, day, webhook uint32) []byte {
	b := binary.BigEndian.AppendUint32(append(make([]byte, 0, 17), table), day)
	return binary.BigEndian.AppendUint32(b, webhook)
}

func keyAttempt(day, webhook uint32, number uint64) []byte {
	return binary.BigEndian.AppendUint64(keyDay(tableAttempt, day, webhook), number)
}

func keyStats(day, webhook uint32, slot uint16) []byte {
	return binary.BigEndian.AppendUint16(keyDay(tableStats, day, webhook), slot)
}

func keyHour(hour uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{tableHour}, hour)
}

func keyID(store uint32, orderingKey, id string) []byte {
	b := make([]byte, 0, 6+len(orderingKey)+len(id))
	b = binary.BigEndian.AppendUint32(append(b, tableID), store)
	b = append(append(b, id...), 0) // an id has no NUL: all keys' events of one id stand together
	return append(b, orderingKey...)
}

func keyFailure(id string) []byte { return append([]byte{tableFailure}, id...) }

const (
	dayMS  = 24 * 3600 * 1000
	hourMS = 3600 * 1000
	slotMS = 5 * 60 * 1000
)

func dayOf(ms int64) uint32  { return uint32(max(ms, 0) / dayMS) }
func hourOf(ms int64) uint32 { return uint32(max(ms, 0) / hourMS) }
func slotOf(ms int64) uint16 { return uint16(max(ms, 0) % dayMS / slotMS) }

func be64(b []byte) uint64 { return binary.BigEndian.Uint64(b) }
func be32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }
