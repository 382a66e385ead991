package api

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/omnisales/edgerelay/relay"
	"github.com/omnisales/edgerelay/relay/state"
)

type exchange struct {
	Headers      map[string]string `json:"headers"`
	Body         string            `json:"body"`
	BodyEncoding string            `json:"body_encoding,omitempty"` // base64, where it is not text
	Truncated    bool              `json:"truncated,omitempty"`
}

type phases struct {
	DNS       float64 `json:"dns_ms"`
	Connect   float64 `json:"connect_ms"`
	TLS       float64 `json:"tls_ms"`
	FirstByte float64 `json:"first_byte_ms"`
}

type attemptShape struct {
	ID            string     `json:"id"`
	DeliveryID    string     `json:"delivery_id"`
	EventID       string     `json:"event_id"`
	Event         string     `json:"event"`
	Webhook       string     `json:"webhook_id"`
	Attempt       int        `json:"attempt"`
	Status        string     `json:"status"`
	ResponseCode  *int       `json:"response_code"`
	Error         *string    `json:"error"`
	DurationMS    float64    `json:"duration_ms"`
	Phases        *phases    `json:"phases"`
	Request       *exchange  `json:"request"`
	Response      *exchange  `json:"response"`
	Plugins       []struct{} `json:"plugins"`
	Evidence      string     `json:"evidence"`
	Node          string     `json:"node"`
	Address       string     `json:"address,omitempty"`
	Test          bool       `json:"test"`
	Replay        bool       `json:"replay"`
	ResponseBytes int        `json:"response_bytes"`
	CreatedAt     any        `json:"created_at"`
	NextAttemptAt any        `json:"next_attempt_at"`
}

func ms(us int64) float64 { return float64(us) / 1000 }

func attemptStatus(s relay.State) string {
	switch s {
	case relay.Succeeded, relay.Filtered:
		return s.String()
	}
	return "failed"
}

// attemptShape shows an attempt; ev is its event, nil for a test's.
func (r *request) attemptShape(h *relay.Webhook, a *relay.Attempt, v *relay.Evidence, ev *relay.Event) *attemptShape {
	s := &attemptShape{ID: relay.AttemptID(h.Store, a.OrderingKey, a.EventID, h.Ordinal, a.Number), DeliveryID: relay.DeliveryID(h.Store, a.OrderingKey, a.EventID, h.Ordinal), EventID: a.EventID, Event: a.EventType,
		Webhook: h.ID, Attempt: a.Attempt, Status: attemptStatus(a.State), DurationMS: ms(a.DurationUS), Plugins: []struct{}{}, Evidence: "reduced", Node: a.Node, Test: a.Test, Replay: a.Replay,
		ResponseBytes: a.ResponseBytes, CreatedAt: at(a.StartedAt), NextAttemptAt: at(a.NextAt)}
	if a.Test { // its row has a number only once it is committed: the event's id is unique anyway
		s.ID = relay.AttemptID(h.Store, a.OrderingKey, a.EventID, h.Ordinal, 0)
	}
	if a.StatusCode != 0 {
		s.ResponseCode = &a.StatusCode
	}
	if a.Error != "" {
		s.Error = &a.Error
	}
	s.Request = requestOf(h, a, ev)
	if v != nil {
		s.Evidence, s.Address = "full", v.Remote
		s.Phases = &phases{ms(v.DNSUS), ms(v.ConnectUS), ms(v.TLSUS), ms(v.FirstByteUS)}
		if a.StatusCode != 0 {
			s.Response = responseOf(v)
		}
		if a.Test {
			s.Request.setBody(v.TestBody)
		}
	}
	return s
}

func responseOf(v *relay.Evidence) *exchange {
	x := &exchange{Headers: map[string]string{}, Truncated: v.Truncated}
	for _, h := range v.ResponseHeaders {
		if old, ok := x.Headers[h[0]]; ok {
			h[1] = old + ", " + h[1]
		}
		x.Headers[h[0]] = strings.ToValidUTF8(h[1], "\ufffd")
	}
	x.setBody(v.ResponseBody)
	return x
}

func (x *exchange) setBody(b []byte) {
	if utf8.Valid(b) {
		x.Body = string(b)
	} else {
		x.Body, x.BodyEncoding = base64.StdEncoding.EncodeToString(b), "base64"
	}
}

// hidden stands for what is secret, or was made with it.
const hidden = "***"

// requestOf rebuilds what was sent from the event; it was never stored.
func requestOf(h *relay.Webhook, a *relay.Attempt, ev *relay.Event) *exchange {
	stamp := strconv.FormatInt(a.StartedAt/1000, 10)
	x := &exchange{Headers: map[string]string{
		"Content-Type": "application/json", "User-Agent": "OmniSales-Webhook/1.0", "X-Webhook-ID": h.ID, "X-Webhook-Timestamp": stamp, "X-Webhook-Signature": hidden,
		"webhook-id": a.EventID, "webhook-timestamp": stamp, "webhook-signature": hidden, "X-Webhook-Event": a.EventType,
		"X-Webhook-Delivery": relay.DeliveryID(h.Store, a.OrderingKey, a.EventID, h.Ordinal), "X-Webhook-Attempt": strconv.Itoa(a.Attempt)}}
	for name := range h.Headers {
		x.Headers[name] = hidden
	}
	if a.Test {
		x.Headers["X-Webhook-Test"] = "true"
	}
	if ev != nil && ev.Data != nil {
		x.setBody(ev.AppendBody(nil))
	}
	return x
}

// scanLimit bounds the rows that one request for a filtered log looks at,
// a partition; the cursor goes on behind them.
const scanLimit = 20_000

type logFilter struct {
	status, event, eventID string
	code                   int
	since, until           int64
}

func (r *request) logFilter() (f logFilter, err error) {
	q := r.QueryArgs()
	f.status, f.event, f.eventID = string(q.Peek("status")), string(q.Peek("event")), string(q.Peek("event_id"))
	if f.status != "" && !slices.Contains([]string{"succeeded", "failed", "filtered"}, f.status) {
		return f, relay.Invalid("status", "must be succeeded, failed or filtered")
	}
	if v := string(q.Peek("response_code")); v != "" {
		if f.code, err = strconv.Atoi(v); err != nil || f.code < 100 || f.code > 999 {
			return f, relay.Invalid("response_code", "must be an HTTP status code")
		}
	}
	if f.since, err = r.timeArg("since", 0); err != nil {
		return f, err
	}
	f.until, err = r.timeArg("until", 1<<62)
	return f, err
}

func (f *logFilter) passes(a *relay.Attempt) bool {
	return (f.status == "" || attemptStatus(a.State) == f.status) && (f.event == "" || a.EventType == f.event) && (f.eventID == "" || a.EventID == f.eventID) &&
		(f.code == 0 || a.StatusCode == f.code) && a.StartedAt >= f.since && a.StartedAt <= f.until
}

// shard is one partition's part of a page.
type shard struct {
	reader state.Reader
	rows   []*relay.Attempt
	before uint64 // of the next page
	done   bool   // there is nothing below before
}

func (r *request) logs() error {
	h, err := r.find()
	if err != nil {
		return err
	}
	limit, cursor, err := r.page()
	if err != nil {
		return err
	}
	f, err := r.logFilter()
	if err != nil {
		return err
	}
	readers := r.opt.Partitions.Readers()
	if cursor != nil && len(cursor) != len(readers) {
		return relay.Invalid("cursor", "is not a next_cursor of this list: start without one")
	}
	shards := make([]*shard, len(readers))
	for i, reader := range readers {
		s := &shard{reader: reader}
		if cursor != nil {
			s.before = cursor[i]
		}
		if err := s.read(h.Ordinal, limit, &f); err != nil {
			return err
		}
		shards[i] = s
	}
	shapes, next, err := r.mergeLogs(h, shards, limit)
	if err != nil {
		return err
	}
	r.list(shapes, next)
	return nil
}

// read finds at most limit rows that pass. A row is older than since only by
// its clock; the days below it are left out.
func (s *shard) read(webhook uint32, limit int, f *logFilter) error {
	looked := 0
	from := s.before
	s.done = true
	return state.Attempts(s.reader, webhook, from, f.since, func(a *relay.Attempt) bool {
		if len(s.rows) == limit || looked == scanLimit {
			s.done = false
			return false
		}
		looked++
		s.before = a.Number
		if f.passes(a) {
			row := *a
			s.rows = append(s.rows, &row)
		}
		return true
	})
}

// mergeLogs takes the newest of all partitions. Where rows of a partition are
// left over, its next page begins behind the last one taken.
func (r *request) mergeLogs(h *relay.Webhook, shards []*shard, limit int) ([]*attemptShape, string, error) {
	shapes := []*attemptShape{}
	for len(shapes) < limit {
		var newest *shard
		for _, s := range shards {
			if len(s.rows) > 0 && (newest == nil || s.rows[0].StartedAt > newest.rows[0].StartedAt) {
				newest = s
			}
		}
		if newest == nil {
			break
		}
		a := newest.rows[0]
		newest.rows = newest.rows[1:]
		shape, err := r.loadAttempt(newest.reader, h, a)
		if err != nil {
			return nil, "", err
		}
		shapes = append(shapes, shape)
	}
	more := false
	cursor := make([]uint64, len(shards))
	for i, s := range shards {
		cursor[i] = s.before
		if len(s.rows) > 0 {
			cursor[i] = s.rows[0].Number + 1
		}
		if len(s.rows) > 0 || !s.done {
			more = true
		} else if cursor[i] == 0 {
			cursor[i] = 1 // it has none: what comes later is newer than this page
		}
	}
	if !more {
		return shapes, "", nil
	}
	return shapes, formatCursor(cursor), nil
}

func (r *request) loadAttempt(reader state.Reader, h *relay.Webhook, a *relay.Attempt) (*attemptShape, error) {
	var v *relay.Evidence
	if a.Full {
		row, err := state.LoadEvidence(reader, a.Number)
		if err != nil {
			return nil, err
		}
		if row != nil {
			v = &relay.Evidence{}
			if err := json.Unmarshal(row, v); err != nil {
				return nil, err
			}
		}
	}
	var ev *relay.Event
	if !a.Test {
		var err error
		if ev, err = state.LoadEvent(reader, a.Sequence); err != nil {
			return nil, err
		}
	}
	return r.attemptShape(h, a, v, ev), nil
}
