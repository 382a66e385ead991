package state

import (
	"encoding/binary"
	"fmt"

	"github.com/omnisales/edgerelay/relay"
)

// A command is an envelope {version, kind} and a body. An unknown version or
// kind stops the replica: skipping it would let replicas differ.
const commandVersion = 1

// Kinds of commands of a partition.
const (
	kindAccept byte = iota + 1
	kindSettle
	kindReplay
	kindExpire
	kindEvict
	kindDropWebhook
)

// Kinds of commands of the meta group.
const (
	kindPutWebhook byte = iota + 64
	kindDeleteWebhook
)

func envelope(kind byte, capacity int) []byte {
	return append(make([]byte, 0, capacity+2), commandVersion, kind)
}

func openEnvelope(data []byte) (kind byte, body []byte, err error) {
	if len(data) < 2 {
		return 0, nil, errCorrupt
	}
	if data[0] != commandVersion {
		return 0, nil, fmt.Errorf("command version %d is newer than this program: upgrade it", data[0])
	}
	return data[1], data[2:], nil
}

// DigestSize is the length of an event's digest, the first bytes of SHA-256.
const DigestSize = 16

// NewEvent is an event to accept. Digest is over type, data and ordering key:
// it decides whether an id that comes again is the same event.
type NewEvent struct {
	Event  *relay.Event // without Sequence and AcceptedAt
	Digest [DigestSize]byte
}

// Accept is the command that makes events durable; Stamp is unix ms.
type Accept struct {
	Stamp  int64
	Events []NewEvent
}

// Encode writes the command.
func (c *Accept) Encode() []byte {
	size := 32
	for i := range c.Events {
		e := c.Events[i].Event
		size += 96 + len(e.ID) + len(e.Type) + len(e.OrderingKey) + 4*len(e.Targets) + len(e.Data)
	}
	b := envelope(kindAccept, size)
	b = binary.AppendVarint(b, c.Stamp)
	b = binary.AppendUvarint(b, uint64(len(c.Events)))
	for i := range c.Events {
		b = append(b, c.Events[i].Digest[:]...)
		b = appendHeader(b, c.Events[i].Event)
		b = putBytes(b, c.Events[i].Event.Data)
	}
	return b
}

func decodeAccept(body []byte) (*Accept, error) {
	d := decoder{b: body}
	c := &Accept{Stamp: d.sint()}
	c.Events = make([]NewEvent, d.count())
	for i := range c.Events {
		copy(c.Events[i].Digest[:], d.take(DigestSize))
		c.Events[i].Event = readHeader(&d)
		c.Events[i].Event.Data = d.bytes()
	}
	return c, d.end()
}

// appendHeader writes an event without its data; it is the value of an event
// row as well. The leading zero is the row's version, with room for flags.
func appendHeader(b []byte, e *relay.Event) []byte {
	b = append(b, 0)
	b = binary.AppendUvarint(b, uint64(e.Store))
	b = putString(b, e.ID)
	b = putString(b, e.Type)
	b = binary.AppendVarint(b, e.CreatedAt)
	b = binary.AppendVarint(b, e.AcceptedAt)
	b = putString(b, e.OrderingKey)
	b = binary.AppendUvarint(b, uint64(len(e.Channels)))
	for _, c := range e.Channels {
		b = putString(b, c)
	}
	b = binary.AppendUvarint(b, uint64(len(e.Targets)))
	previous := uint32(0)
	for _, t := range e.Targets {
		b = binary.AppendUvarint(b, uint64(t.Webhook-previous))
		b = binary.AppendUvarint(b, uint64(t.Revision))
		previous = t.Webhook
	}
	return b
}

func readHeader(d *decoder) *relay.Event {
	if d.byte() != 0 {
		d.fail()
	}
	e := &relay.Event{Store: d.uint32(), ID: d.string(), Type: d.string(), CreatedAt: d.sint(), AcceptedAt: d.sint(), OrderingKey: d.string()}
	if n := d.count(); n > 0 {
		e.Channels = make([]string, n)
		for i := range e.Channels {
			e.Channels[i] = d.string()
		}
	}
	if n := d.count(); n > 0 {
		e.Targets = make([]relay.Target, n)
		previous := uint32(0)
		for i := range e.Targets {
			previous += d.uint32()
			e.Targets[i] = relay.Target{Webhook: previous, Revision: d.uint32()}
		}
	}
	return e
}

// Settle records outcomes and moves the cursor. Term is that of the
// dispatcher; in an entry of another term the command does nothing.
type Settle struct {
	Stamp    int64
	Term     uint64
	Cursor   uint64
	Outcomes []*relay.Outcome
}

const (
	flagParked = 1 << iota
	flagTest
	flagEvidence
)

// Encode writes the command.
func (c *Settle) Encode() []byte {
	size := 48
	for _, o := range c.Outcomes {
		size += 64 + len(o.Error) + len(o.Evidence)
	}
	b := envelope(kindSettle, size)
	b = binary.AppendVarint(b, c.Stamp)
	b = binary.AppendUvarint(b, c.Term)
	b = binary.AppendUvarint(b, c.Cursor)
	b = binary.AppendUvarint(b, uint64(len(c.Outcomes)))
	for _, o := range c.Outcomes {
		b = appendOutcome(b, o)
	}
	return b
}

func appendOutcome(b []byte, o *relay.Outcome) []byte {
	var flags byte
	if o.Parked {
		flags |= flagParked
	}
	if o.Test {
		flags |= flagTest
	}
	if o.Evidence != nil {
		flags |= flagEvidence
	}
	b = append(b, byte(o.State), flags)
	b = binary.AppendUvarint(b, o.Sequence)
	b = binary.AppendUvarint(b, uint64(o.Webhook))
	b = putString(b, o.EventType)
	b = binary.AppendVarint(b, o.AcceptedAt)
	b = binary.AppendUvarint(b, uint64(o.Attempt))
	b = binary.AppendUvarint(b, uint64(o.StatusCode))
	b = putString(b, o.Error)
	b = binary.AppendVarint(b, o.StartedAt)
	b = binary.AppendUvarint(b, uint64(o.DurationUS))
	b = binary.AppendVarint(b, o.NextAt)
	b = binary.AppendUvarint(b, uint64(o.ResponseBytes))
	b = putString(b, o.Node)
	b = putString(b, o.EventID)
	if o.Evidence != nil {
		b = putBytes(b, o.Evidence)
	}
	return b
}

func decodeSettle(body []byte) (*Settle, error) {
	d := decoder{b: body}
	c := &Settle{Stamp: d.sint(), Term: d.uint(), Cursor: d.uint()}
	c.Outcomes = make([]*relay.Outcome, d.count())
	for i := range c.Outcomes {
		c.Outcomes[i] = readOutcome(&d)
	}
	return c, d.end()
}

func readOutcome(d *decoder) *relay.Outcome {
	state, flags := relay.State(d.byte()), d.byte()
	if state > relay.Replaying {
		d.fail()
	}
	o := &relay.Outcome{State: state, Parked: flags&flagParked != 0, Test: flags&flagTest != 0,
		Sequence: d.uint(), Webhook: d.uint32(), EventType: d.string(), AcceptedAt: d.sint(), Attempt: d.int(), StatusCode: d.int(),
		Error: d.string(), StartedAt: d.sint(), DurationUS: int64(d.int()), NextAt: d.sint(), ResponseBytes: d.int(), Node: d.string(), EventID: d.string()}
	if flags&flagEvidence != 0 {
		o.Evidence = d.bytes()
	}
	return o
}

// Replay puts failures of one webhook back on their way, from attempt 1.
type Replay struct {
	Stamp    int64
	Webhook  uint32
	Failures []string
}

// Encode writes the command.
func (c *Replay) Encode() []byte {
	b := envelope(kindReplay, 32+40*len(c.Failures))
	b = binary.AppendVarint(b, c.Stamp)
	b = binary.AppendUvarint(b, uint64(c.Webhook))
	b = binary.AppendUvarint(b, uint64(len(c.Failures)))
	for _, f := range c.Failures {
		b = putString(b, f)
	}
	return b
}

func decodeReplay(body []byte) (*Replay, error) {
	d := decoder{b: body}
	c := &Replay{Stamp: d.sint(), Webhook: d.uint32()}
	c.Failures = make([]string, d.count())
	for i := range c.Failures {
		c.Failures[i] = d.string()
	}
	return c, d.end()
}

// Expire lets go of what is past its retention: the events From..Floor, except
// those with a dead letter younger than FailedBefore; what of them is still
// pending becomes a dead letter. Attempts and statistics of days before Day
// and evidence of attempts below Evidence go too. The leader sends it in
// chunks of sequences, so that one entry stays cheap to apply.
type Expire struct {
	Stamp        int64
	From, Floor  uint64
	FailedBefore int64 // unix ms
	Day          uint32
	Evidence     uint64
}

// Encode writes the command.
func (c *Expire) Encode() []byte {
	b := binary.AppendVarint(envelope(kindExpire, 60), c.Stamp)
	b = binary.AppendUvarint(b, c.From)
	b = binary.AppendUvarint(b, c.Floor)
	b = binary.AppendVarint(b, c.FailedBefore)
	b = binary.AppendUvarint(b, uint64(c.Day))
	return binary.AppendUvarint(b, c.Evidence)
}

func decodeExpire(body []byte) (*Expire, error) {
	d := decoder{b: body}
	c := &Expire{Stamp: d.sint(), From: d.uint(), Floor: d.uint(), FailedBefore: d.sint(), Day: d.uint32(), Evidence: d.uint()}
	return c, d.end()
}

// Evict makes room: evidence of attempts below Evidence, bodies of settled
// events at or below Bodies.
type Evict struct {
	Stamp    int64
	Evidence uint64 // attempt number
	Bodies   uint64 // sequence
}

// Encode writes the command.
func (c *Evict) Encode() []byte {
	b := binary.AppendVarint(envelope(kindEvict, 40), c.Stamp)
	b = binary.AppendUvarint(b, c.Evidence)
	return binary.AppendUvarint(b, c.Bodies)
}

func decodeEvict(body []byte) (*Evict, error) {
	d := decoder{b: body}
	c := &Evict{Stamp: d.sint(), Evidence: d.uint(), Bodies: d.uint()}
	return c, d.end()
}

// DropWebhook forgets the dead letters of a webhook deleted a day ago.
type DropWebhook struct {
	Stamp   int64
	Webhook uint32
}

// Encode writes the command.
func (c *DropWebhook) Encode() []byte {
	b := binary.AppendVarint(envelope(kindDropWebhook, 24), c.Stamp)
	return binary.AppendUvarint(b, uint64(c.Webhook))
}

func decodeDropWebhook(body []byte) (*DropWebhook, error) {
	d := decoder{b: body}
	c := &DropWebhook{Stamp: d.sint(), Webhook: d.uint32()}
	return c, d.end()
}
