package intake

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/omnisales/edgerelay/relay"
	"github.com/omnisales/edgerelay/relay/canonical"
)

const (
	noTime      = math.MinInt64
	maxChannels = 10
)

// read checks one published event. The body may be reused afterwards.
func (in *Intake) read(store uint32, body []byte, idempotencyKey string) (draft, *relay.Error) {
	e := &relay.Event{Store: store, CreatedAt: noTime}
	d := draft{}
	d.event.Event = e
	var data []byte
	err := canonical.Members(body, func(key string, raw []byte) error {
		switch key {
		case "event":
			return field(raw, key, &e.Type)
		case "data":
			data = raw
			return nil
		case "id":
			err := field(raw, key, &e.ID)
			if err == nil {
				err = checkID(key, e.ID)
			}
			if err == nil {
				d.id = e.ID
			}
			return err
		case "created_at":
			return readTime(raw, &e.CreatedAt)
		case "ordering_key":
			return readKey(raw, &e.OrderingKey)
		case "channels":
			return readChannels(raw, &e.Channels)
		}
		return relay.Invalid(key, "is not a field of an event: leave it out, or put it into data")
	})
	if err == nil {
		err = in.checkType(e.Type)
	}
	if err == nil {
		err = takeIdempotencyKey(e, idempotencyKey)
	}
	if err == nil {
		err = in.readData(&d, data)
	}
	if err == nil {
		if fault := in.finish(&d); fault != nil {
			return d, fault
		}
		return d, nil
	}
	if e, ok := relay.AsError(err); ok {
		return d, e
	}
	why, path := reason(err)
	if path == "" {
		why = "the body " + why
	}
	return d, relay.Invalid(path, why)
}

// field reads a string; null is as if it were not there.
func field(raw []byte, name string, to *string) error {
	if string(raw) == "null" {
		return nil
	}
	if raw[0] != '"' || json.Unmarshal(raw, to) != nil {
		return relay.Invalid(name, "must be a string")
	}
	return nil
}

func checkID(name, id string) error {
	if !relay.ValidID(id) {
		return relay.Invalid(name, "must be 1 to 128 characters of A-Z a-z 0-9 _ -")
	}
	return nil
}

func takeIdempotencyKey(e *relay.Event, key string) error {
	switch {
	case key == "":
		return nil
	case e.ID != "" && e.ID != key:
		return relay.Invalid("id", "and the Idempotency-Key header differ: send one of them")
	}
	e.ID = key
	return checkID("Idempotency-Key", key)
}

func (in *Intake) checkType(name string) error {
	switch {
	case name == "":
		return relay.Invalid("event", "is required: a type such as order.created")
	case strings.HasPrefix(name, "webhook.") || strings.HasPrefix(name, "delivery."):
		return relay.Invalid("event", "webhook.* and delivery.* are the gateway's own notices: publish another type")
	case !in.opt.KnownType(name):
		if len(name) > 64 {
			name = strings.ToValidUTF8(name[:64], "") + "…"
		}
		return relay.Invalid("event", fmt.Sprintf("the type %q is unknown: GET /api/event-types lists those that are", name))
	}
	return nil
}

func readTime(raw []byte, to *int64) error {
	var s string
	if err := field(raw, "created_at", &s); err != nil || string(raw) == "null" {
		return err
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.UTC().Year() < 0 || t.UTC().Year() > 9999 {
		return relay.Invalid("created_at", "must be a time as RFC 3339 has it, such as 2025-01-16T10:30:00Z")
	}
	*to = t.Unix()
	return nil
}

func readKey(raw []byte, to *string) error {
	if err := field(raw, "ordering_key", to); err != nil || string(raw) == "null" {
		return err
	}
	if len(*to) < 1 || len(*to) > 128 || !utf8.ValidString(*to) || strings.ContainsRune(*to, 0) {
		return relay.Invalid("ordering_key", "must be 1 to 128 bytes of text without NUL")
	}
	return nil
}

func readChannels(raw []byte, to *[]string) error {
	if string(raw) == "null" {
		return nil
	}
	bad := relay.Invalid("channels", "must be an array of at most 10 strings of 1 to 64 characters of A-Z a-z 0-9 _ . : -")
	err := canonical.Elements(raw, func(raw []byte) error {
		var s string
		if raw[0] != '"' || json.Unmarshal(raw, &s) != nil || !relay.ValidChannel(s) || len(*to) == maxChannels {
			return bad
		}
		*to = append(*to, s)
		return nil
	})
	if err != nil {
		return bad
	}
	return nil
}

func (in *Intake) readData(d *draft, raw []byte) error {
	switch {
	case len(raw) == 0:
		return relay.Invalid("data", "is required: an object with what happened")
	case raw[0] != '{':
		return relay.Invalid("data", "must be an object")
	}
	data, inexact, err := canonical.Append(make([]byte, 0, len(raw)), raw)
	if err != nil {
		why, path := reason(err)
		return relay.Invalid(under("data", path), why)
	}
	d.event.Event.Data = data
	for _, path := range inexact {
		const message = "no double holds this number: receivers that parse the body read another one, send it as a string"
		if in.opt.StrictNumbers {
			return relay.Invalid(under("data", path), message)
		}
		d.warnings = append(d.warnings, relay.Warning{Code: "number_not_exact", Message: message, Field: under("data", path)})
	}
	return nil
}

func under(root, path string) string {
	if path == "" || path[0] == '[' {
		return root + path
	}
	return root + "." + path
}
