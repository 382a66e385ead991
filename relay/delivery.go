package relay

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// State is where a delivery stands.
type State uint8

// A delivery is Pending from acceptance on. Retrying and Backlog are parked:
// a row names them. Succeeded, Dead, Filtered and Cancelled are settled; a
// dead one becomes Replaying when its failure is replayed.
const (
	Pending State = iota
	Succeeded
	Retrying
	Dead
	Filtered
	Cancelled
	Backlog
	Replaying
)

func (s State) String() string {
	return [...]string{"pending", "succeeded", "retrying", "dead", "filtered", "cancelled", "pending", "retrying"}[s]
}

// Settled says whether nothing more will happen to the delivery by itself.
func (s State) Settled() bool { return s == Succeeded || s == Dead || s == Filtered || s == Cancelled }

// Outcome is what the dispatcher reports of a delivery: the result of an
// attempt, or that the delivery was parked in the backlog or cancelled
// (Attempt 0: no request was made).
type Outcome struct {
	Sequence   uint64
	Webhook    uint32 // ordinal
	EventType  string
	AcceptedAt int64 // the event's, unix ms: its statistics bucket
	State      State
	// Parked says that the delivery had a row of its own (timer, backlog,
	// replay) before this outcome, which the outcome removes.
	Parked     bool
	Attempt    int    // 1.. ; 0 for no attempt
	StatusCode int    // of the answer; 0 for none
	Error      string // begins with a stable code; "" on success
	StartedAt  int64  // unix ms
	DurationUS int64
	NextAt     int64 // unix ms, with Retrying
	// ResponseBytes is the size of the answer's body as far as it was read.
	ResponseBytes int
	// Evidence is the encoded Evidence; nil means reduced.
	Evidence []byte
	Node     string
	// Test marks an attempt of POST .../test: logged, nothing else. Its
	// event is not stored, so its id travels here.
	Test    bool
	EventID string
}

// Evidence is kept of an attempt where it is kept in full. Request headers
// and body are rebuilt from the event, except for a test's body.
type Evidence struct {
	ResponseHeaders [][2]string `json:"h,omitempty"`
	ResponseBody    []byte      `json:"b,omitempty"`
	Truncated       bool        `json:"t,omitempty"`
	Remote          string      `json:"r,omitempty"`
	DNSUS           int64       `json:"d,omitempty"`
	ConnectUS       int64       `json:"c,omitempty"`
	TLSUS           int64       `json:"s,omitempty"`
	FirstByteUS     int64       `json:"f,omitempty"`
	RequestHeaders  [][2]string `json:"q,omitempty"` // without anything secret
	TestBody        []byte      `json:"e,omitempty"`
}

// Attempt is a row of a webhook's log.
type Attempt struct {
	Sequence      uint64 // of the event; 0 for a test
	Number        uint64 // the attempt's place in the partition's order of attempts
	Webhook       uint32
	EventID       string
	EventType     string
	OrderingKey   string
	Attempt       int
	State         State
	StatusCode    int
	Error         string
	StartedAt     int64
	DurationUS    int64
	NextAt        int64
	ResponseBytes int
	Full          bool // evidence is there
	Test          bool
	Replay        bool
	Node          string
}

// Failure is a delivery in the dead-letter queue.
type Failure struct {
	ID         string // fail_ + 32 hex
	Sequence   uint64
	Number     uint64 // its place in the webhook's queue: ascending by time of death
	Webhook    uint32
	EventID    string
	EventType  string
	Attempts   int
	StatusCode int
	Error      string
	State      State // Dead, Replaying, or Succeeded ("replayed")
	CreatedAt  int64 // the event's, unix seconds
	FailedAt   int64 // unix ms
}

// FailureID derives the failure's id; the same delivery dies under the same id.
func FailureID(store uint32, orderingKey, eventID string, webhook uint32) string {
	return "fail_" + derive('f', store, orderingKey, eventID, webhook, 0)
}

// DeliveryID derives the id of an event's delivery to a webhook.
func DeliveryID(store uint32, orderingKey, eventID string, webhook uint32) string {
	return "dlv_" + derive('d', store, orderingKey, eventID, webhook, 0)
}

// AttemptID derives the id of an attempt from its delivery and number.
func AttemptID(store uint32, orderingKey, eventID string, webhook uint32, number uint64) string {
	return "att_" + derive('a', store, orderingKey, eventID, webhook, number)
}

// derive hashes what names a delivery: an event's id is unique within its
// ordering key only.
func derive(kind byte, store uint32, orderingKey, eventID string, webhook uint32, n uint64) string {
	var buf [320]byte
	b := append(buf[:0], kind)
	b = binary.BigEndian.AppendUint32(b, store)
	b = binary.BigEndian.AppendUint32(b, webhook)
	b = binary.BigEndian.AppendUint64(b, n)
	b = append(append(b, eventID...), 0) // an id has no NUL
	sum := sha256.Sum256(append(b, orderingKey...))
	return hex.EncodeToString(sum[:16])
}
