package api

import (
	"context"
	"encoding/json"

	"github.com/omnisales/edgerelay/relay"
	"github.com/omnisales/edgerelay/relay/state"
)

type failureShape struct {
	ID               string          `json:"id"`
	EventID          string          `json:"event_id"`
	Event            string          `json:"event"`
	Webhook          string          `json:"webhook_id"`
	Attempts         int             `json:"attempts"`
	LastResponseCode *int            `json:"last_response_code"`
	LastError        *string         `json:"last_error"`
	Status           string          `json:"status"`
	Payload          json.RawMessage `json:"payload"`
	CreatedAt        string          `json:"created_at"`
	FailedAt         any             `json:"failed_at"`
}

func failureStatus(s relay.State) string {
	switch s {
	case relay.Replaying:
		return "replaying"
	case relay.Succeeded:
		return "replayed"
	}
	return "dead"
}

func failureOf(reader state.Reader, h *relay.Webhook, f *relay.Failure) (*failureShape, error) {
	s := &failureShape{ID: f.ID, EventID: f.EventID, Event: f.EventType, Webhook: h.ID, Attempts: f.Attempts, Status: failureStatus(f.State), CreatedAt: relay.FormatTime(f.CreatedAt), FailedAt: at(f.FailedAt)}
	if f.StatusCode != 0 {
		s.LastResponseCode = &f.StatusCode
	}
	if f.Error != "" {
		s.LastError = &f.Error
	}
	ev, err := state.LoadEvent(reader, f.Sequence)
	if err != nil {
		return nil, err
	}
	if ev != nil && ev.Data != nil {
		s.Payload = ev.AppendBody(nil)
	}
	return s, nil
}

type deadShard struct {
	reader state.Reader
	rows   []relay.Failure
	before uint64
}

// listFailures shows the dead-letter queue, newest first.
func (r *request) listFailures() error {
	h, err := r.find()
	if err != nil {
		return err
	}
	limit, cursor, err := r.page()
	if err != nil {
		return err
	}
	readers := r.opt.Partitions.Readers()
	if cursor != nil && len(cursor) != len(readers) {
		return relay.Invalid("cursor", "is not a next_cursor of this list: start without one")
	}
	shards := make([]*deadShard, len(readers))
	for i, reader := range readers {
		s := &deadShard{reader: reader}
		if cursor != nil {
			s.before = cursor[i]
		}
		if err := state.Failures(reader, h.Ordinal, s.before, func(f *relay.Failure) bool {
			s.rows = append(s.rows, *f)
			return len(s.rows) <= limit
		}); err != nil {
			return err
		}
		shards[i] = s
	}
	out, next, err := mergeFailures(h, shards, limit)
	if err != nil {
		return err
	}
	r.list(out, next)
	return nil
}

func mergeFailures(h *relay.Webhook, shards []*deadShard, limit int) ([]*failureShape, string, error) {
	out := []*failureShape{}
	for len(out) < limit {
		var newest *deadShard
		for _, s := range shards {
			if len(s.rows) > 0 && (newest == nil || s.rows[0].FailedAt > newest.rows[0].FailedAt) {
				newest = s
			}
		}
		if newest == nil {
			break
		}
		f := newest.rows[0]
		newest.rows, newest.before = newest.rows[1:], f.Number
		shape, err := failureOf(newest.reader, h, &f)
		if err != nil {
			return nil, "", err
		}
		out = append(out, shape)
	}
	more := false
	cursor := make([]uint64, len(shards))
	for i, s := range shards {
		more = more || len(s.rows) > 0
		if cursor[i] = s.before; s.before == 0 {
			cursor[i] = 1 // it has none
			if len(s.rows) > 0 {
				cursor[i] = s.rows[0].Number + 1
			}
		}
	}
	if !more {
		return out, "", nil
	}
	return out, formatCursor(cursor), nil
}

// replayRequest is the body of POST .../replay: exactly one of its forms.
type replayRequest struct {
	ids          []string
	single       bool
	ranged, all  bool
	since, until int64
}

func readReplay(body []byte) (c replayRequest, err error) {
	forms := 0
	c.until = 1 << 62
	err = fields(body, func(key string, raw []byte) error {
		switch key {
		case "failure_id":
			forms++
			var id string
			c.single = true
			err := readString(raw, key, &id, 128)
			c.ids = []string{id}
			return err
		case "failure_ids":
			forms++
			return readStrings(raw, key, &c.ids, 1000)
		case "all":
			forms++
			return readBool(raw, key, &c.all)
		case "since", "until":
			if !c.ranged {
				forms++
			}
			c.ranged = true
			to := &c.since
			if key == "until" {
				to = &c.until
			}
			return readTimeField(raw, key, to)
		case "as_accepted":
			var as bool
			if err := readBool(raw, key, &as); err != nil || !as {
				return err
			}
			return relay.Invalid(key, "is not supported by this version: leave it out")
		}
		return unknownField(key)
	})
	if err == nil && (forms != 1 || !c.all && !c.ranged && len(c.ids) == 0) {
		err = relay.Invalid("failure_id", `send one of failure_id, failure_ids, since and until, or "all":true`)
	}
	return c, err
}

func readTimeField(raw []byte, name string, to *int64) (err error) {
	var s string
	if raw[0] == '"' {
		err = readString(raw, name, &s, 64)
	} else {
		s = string(raw)
	}
	if err == nil {
		*to, err = parseTime(s, name)
	}
	return err
}

func (r *request) replay() error {
	h, err := r.find()
	if err != nil {
		return err
	}
	body, _, err := r.body("application/json")
	if err != nil {
		return err
	}
	c, err := readReplay(body)
	if err != nil {
		return err
	}
	if c.single {
		if err := r.mustExist(h, c.ids[0]); err != nil {
			return err
		}
	}
	ids := c.ids
	if c.all || c.ranged {
		if ids, err = r.deadBetween(h, c.since, c.until); err != nil {
			return err
		}
	}
	n, err := r.opt.Partitions.Replay(context.Background(), h.Ordinal, ids)
	if err != nil {
		return err
	}
	r.succeed(200, map[string]int{"replayed": n})
	return nil
}

func (r *request) mustExist(h *relay.Webhook, id string) error {
	for _, reader := range r.opt.Partitions.Readers() {
		if f, err := state.LoadFailure(reader, h.Ordinal, id); err != nil || f != nil {
			return err
		}
	}
	return relay.NotFound("no such failure: GET this path lists the webhook's")
}

// deadBetween gathers the dead letters that failed from since to until.
func (r *request) deadBetween(h *relay.Webhook, since, until int64) (ids []string, err error) {
	for _, reader := range r.opt.Partitions.Readers() {
		if err := state.Failures(reader, h.Ordinal, 0, func(f *relay.Failure) bool {
			if f.State == relay.Dead && f.FailedAt >= since && f.FailedAt <= until {
				ids = append(ids, f.ID)
			}
			return true
		}); err != nil {
			return nil, err
		}
	}
	return ids, nil
}
