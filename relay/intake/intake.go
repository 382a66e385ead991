// Package intake makes accepted events of what stores publish: it checks the
// request, brings the data into canonical form, finds the webhooks that the
// event goes to, and has it made durable. It owns no goroutine.
//
// What it guarantees: an event is answered as accepted only after the acceptor
// said so; nothing of a refused event is kept.
package intake

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/omnisales/edgerelay/relay"
	"github.com/omnisales/edgerelay/relay/canonical"
	"github.com/omnisales/edgerelay/relay/state"
)

// Resolver finds the webhooks that an event goes to.
type Resolver interface {
	Resolve(dst []relay.Target, store uint32, eventType string, channels []string) []relay.Target
}

// Acceptor makes events durable; an answer for each, in order.
type Acceptor interface {
	Accept(ctx context.Context, events []state.NewEvent) ([]state.Accepted, error)
}

// Options of an Intake; all are required.
type Options struct {
	Registry      Resolver
	Acceptor      Acceptor
	MaxEventBytes int // of the body that is sent
	StrictNumbers bool
	Now           func() time.Time
	Random        io.Reader
	KnownType     func(name string) bool
}

// Limits of a batch.
const (
	MaxBatchEvents = 1000
	MaxBatchBytes  = 8 << 20
)

// Intake is safe for concurrent use.
type Intake struct {
	opt Options

	mu     sync.Mutex
	random *bufio.Reader // many ids from one read
}

// New makes an Intake.
func New(opt Options) *Intake {
	return &Intake{opt: opt, random: bufio.NewReaderSize(opt.Random, 4096)}
}

// Publish accepts one event. The error is a *relay.Error; with
// outcome_unknown it carries the id with which publishing again is safe.
func (in *Intake) Publish(ctx context.Context, store uint32, body []byte, idempotencyKey string) (relay.Receipt, error) {
	d, fault := in.read(store, body, idempotencyKey)
	if fault != nil {
		return relay.Receipt{}, fault
	}
	accepted, err := in.opt.Acceptor.Accept(ctx, []state.NewEvent{d.event})
	if err != nil {
		return relay.Receipt{}, withID(err, d.event.Event.ID)
	}
	r := d.receipt(accepted[0])
	if r.Err != nil {
		return relay.Receipt{}, r.Err
	}
	return r, nil
}

func withID(err error, id string) *relay.Error {
	e, ok := relay.AsError(err)
	if !ok {
		return &relay.Error{Code: relay.CodeInternal, Message: "the event could not be accepted"}
	}
	if e.Code == relay.CodeOutcomeUnknown {
		c := *e
		c.EventID = id
		return &c
	}
	return e
}

// PublishBatch accepts many events: a JSON array, or NDJSON. A receipt an
// event, in order, with the error where one was refused; the returned error
// is of the request as a whole.
func (in *Intake) PublishBatch(ctx context.Context, store uint32, body []byte, ndjson bool) ([]relay.Receipt, error) {
	raws, err := split(body, ndjson)
	if err != nil {
		return nil, err
	}
	receipts := make([]relay.Receipt, len(raws))
	drafts := make([]draft, 0, len(raws))
	places := make([]int, 0, len(raws))
	events := make([]state.NewEvent, 0, len(raws))
	for i, raw := range raws {
		d, fault := in.read(store, raw, "")
		if fault != nil {
			receipts[i] = relay.Receipt{ID: d.id, Err: fault}
			continue
		}
		drafts, places, events = append(drafts, d), append(places, i), append(events, d.event)
	}
	if len(events) == 0 {
		return receipts, nil
	}
	accepted, err := in.opt.Acceptor.Accept(ctx, events)
	for j, d := range drafts {
		if err != nil {
			receipts[places[j]] = relay.Receipt{ID: d.event.Event.ID, Err: withID(err, d.event.Event.ID)}
			continue
		}
		receipts[places[j]] = d.receipt(accepted[j])
	}
	return receipts, nil
}

func split(body []byte, ndjson bool) (raws [][]byte, err error) {
	if len(body) > MaxBatchBytes {
		return nil, &relay.Error{Code: relay.CodeTooLarge, Message: "a batch is at most 8 MiB: send it in parts"}
	}
	if ndjson {
		for line := range bytes.Lines(body) {
			if line = bytes.TrimSpace(line); len(line) > 0 {
				raws = append(raws, line)
			}
		}
	} else if err := canonical.Elements(body, func(raw []byte) error {
		raws = append(raws, raw)
		return nil
	}); err != nil {
		return nil, relay.Invalid("", "the batch "+err.Error()+": send a JSON array of events, or NDJSON as application/x-ndjson")
	}
	switch {
	case len(raws) == 0:
		return nil, relay.Invalid("", "the batch holds no event")
	case len(raws) > MaxBatchEvents:
		return nil, &relay.Error{Code: relay.CodeTooLarge, Message: fmt.Sprintf("a batch is at most 1000 events, this one has %d: send it in parts", len(raws))}
	}
	return raws, nil
}

// draft is an event that was read and checked.
type draft struct {
	id       string // as given, also of an event that was refused
	event    state.NewEvent
	warnings []relay.Warning
}

func (d *draft) receipt(a state.Accepted) relay.Receipt {
	e := d.event.Event
	if a.Conflict {
		return relay.Receipt{ID: e.ID, Err: &relay.Error{Code: relay.CodeIDConflict, Field: "id", Message: "this id was accepted before with another event, data or ordering_key: use a new id"}}
	}
	return relay.Receipt{ID: e.ID, Event: e.Type, CreatedAt: a.CreatedAt, Matched: a.Matched, Duplicate: a.Duplicate, Warnings: d.warnings}
}

// finish gives the event what the request did not: id, time, targets, digest.
func (in *Intake) finish(d *draft) *relay.Error {
	e := d.event.Event
	if e.ID == "" {
		id, err := in.newID()
		if err != nil {
			return &relay.Error{Code: relay.CodeInternal, Message: "no randomness for an id"}
		}
		e.ID = id
	}
	if e.CreatedAt == noTime {
		e.CreatedAt = in.opt.Now().Unix()
	}
	if size := bodySize(e); size > in.opt.MaxEventBytes {
		return &relay.Error{Code: relay.CodeTooLarge, Field: "data", Message: fmt.Sprintf("the event's body would be %d bytes, the limit is %d: send less, or a link to the rest", size, in.opt.MaxEventBytes)}
	}
	e.Targets = in.opt.Registry.Resolve(nil, e.Store, e.Type, e.Channels)
	d.event.Digest = digest(e)
	return nil
}

// bodySize is the length of Event.AppendBody's result: the envelope is 72
// bytes besides what it holds.
func bodySize(e *relay.Event) int {
	return len(`{"id":"","event":"","created_at":"2006-01-02T15:04:05Z","data":}`) + len(e.ID) + len(e.Type) + len(e.Data)
}

// digest decides whether an id that comes again is the same event: by type,
// data and ordering key.
func digest(e *relay.Event) (d [state.DigestSize]byte) {
	h := sha256.New()
	io.WriteString(h, e.Type) // a hash takes everything
	h.Write([]byte{0})
	io.WriteString(h, e.OrderingKey)
	h.Write([]byte{0})
	h.Write(e.Data)
	var sum [sha256.Size]byte
	copy(d[:], h.Sum(sum[:0]))
	return d
}

func (in *Intake) newID() (string, error) {
	var b [16]byte
	in.mu.Lock()
	_, err := io.ReadFull(in.random, b[:])
	in.mu.Unlock()
	if err != nil {
		return "", err
	}
	var id [36]byte
	copy(id[:], "evt_")
	hex.Encode(id[4:], b[:])
	return string(id[:]), nil
}

// reason is a canonical error's text without its place.
func reason(err error) (message, path string) {
	var e *canonical.Error
	if errors.As(err, &e) {
		return e.Reason, e.Path
	}
	return err.Error(), ""
}
