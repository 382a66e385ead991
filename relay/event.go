package relay

import (
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Event is an accepted event. It is immutable; Data may be shared.
type Event struct {
	// Sequence is the event's place in its partition's commit order, from 1.
	Sequence    uint64
	Store       uint32
	ID          string // [A-Za-z0-9_-]{1,128}
	Type        string // "order.created"
	CreatedAt   int64  // unix seconds, the publisher's
	AcceptedAt  int64  // unix milliseconds, the partition's
	OrderingKey string
	Channels    []string
	Targets     []Target // ascending by Webhook
	Data        []byte   // canonical JSON object; nil where it was not loaded, erased or evicted
}

// Target is a webhook that an event goes to, as decided when it was accepted.
type Target struct {
	Webhook  uint32 // ordinal
	Revision uint32
}

// TimeFormat is how times stand in bodies and answers, always in UTC.
const TimeFormat = "2006-01-02T15:04:05Z"

// FormatTime writes unix seconds as TimeFormat.
func FormatTime(unix int64) string { return time.Unix(unix, 0).UTC().Format(TimeFormat) }

// AppendBody appends what a receiver gets: {"id","event","created_at","data"},
// in that order. The id and the type need no escaping, by their alphabets.
func (e *Event) AppendBody(dst []byte) []byte {
	dst = append(dst, `{"id":"`...)
	dst = append(dst, e.ID...)
	dst = append(dst, `","event":"`...)
	dst = append(dst, e.Type...)
	dst = append(dst, `","created_at":"`...)
	dst = time.Unix(e.CreatedAt, 0).UTC().AppendFormat(dst, TimeFormat)
	dst = append(dst, `","data":`...)
	dst = append(dst, e.Data...)
	return append(dst, '}')
}

// Partition is the one routing rule: which of n partitions (0..n-1) an event
// belongs to. The hash, XXH64 with seed 0 over the store's ordinal (4 bytes,
// big endian), a tag byte and the key, is part of the disk format.
func Partition(store uint32, orderingKey, id string, n int) int {
	tag, key := byte('i'), id
	if orderingKey != "" {
		tag, key = 'k', orderingKey
	}
	var buf [192]byte
	b := append(buf[:0], byte(store>>24), byte(store>>16), byte(store>>8), byte(store), tag)
	b = append(b, key...)
	return int(xxhash.Sum64(b) % uint64(n))
}

// ValidID says whether s can be an event's id: 1 to 128 of A-Z a-z 0-9 _ -.
func ValidID(s string) bool { return spelled(s, 128, "_-") }

// ValidChannel says whether s can be a channel: 1 to 64 of A-Z a-z 0-9 _ . : -.
func ValidChannel(s string) bool { return spelled(s, 64, "_.:-") }

// spelled says whether s is 1 to most letters, digits and those of others.
func spelled(s string, most int, others string) bool {
	if len(s) < 1 || len(s) > most {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(others, c) >= 0) {
			return false
		}
	}
	return true
}
