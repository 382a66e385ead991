package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/omnisales/edgerelay/relay"
	"github.com/omnisales/edgerelay/relay/canonical"
)

// statuses maps the errors of every part behind the API to HTTP, here and
// nowhere else.
var statuses = map[string]int{
	relay.CodeInvalid: 400, relay.CodeUnauthorized: 401, relay.CodeForbidden: 403, relay.CodeNotFound: 404, "method_not_allowed": 405, relay.CodeConflict: 409, relay.CodeIDConflict: 409,
	relay.CodeTooLarge: 413, "unsupported_media_type": 415, relay.CodeOverloaded: 429, relay.CodeUnavailable: 503, relay.CodeOutcomeUnknown: 503, relay.CodeInternal: 500,
}

type errorShape struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Field   string `json:"field,omitempty"`
	ID      string `json:"id,omitempty"` // with outcome_unknown
}

func shapeOf(e *relay.Error) *errorShape {
	return &errorShape{Code: e.Code, Message: e.Message, Field: e.Field, ID: e.EventID}
}

// envelope is every answer. Lists set next to a cursor or null.
type envelope struct {
	Success  bool            `json:"success"`
	Data     any             `json:"data,omitempty"`
	Next     json.RawMessage `json:"next_cursor,omitempty"`
	Warnings []relay.Warning `json:"warnings,omitempty"`
	Error    *errorShape     `json:"error,omitempty"`
}

func (r *request) write(status int, e envelope) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		r.opt.Logger.Error("write answer", "error", err)
		status, b = 500, *bytes.NewBufferString(`{"success":false,"error":{"code":"internal","message":"the answer could not be written"}}`)
	}
	r.SetStatusCode(status)
	r.SetContentType("application/json")
	r.SetBody(b.Bytes())
}

func (r *request) succeed(status int, data any, warnings ...relay.Warning) {
	r.write(status, envelope{Success: true, Data: data, Warnings: warnings})
}

// list answers a page; next is "" at the end.
func (r *request) list(data any, next string) {
	cursor := json.RawMessage("null")
	if next != "" {
		cursor = json.RawMessage(strconv.Quote(next))
	}
	r.write(200, envelope{Success: true, Data: data, Next: cursor})
}

// fail answers an error. What is not meant for a user is logged, not told.
func (r *request) fail(err error) {
	e, ok := relay.AsError(err)
	if !ok {
		r.opt.Logger.Error("request failed", "method", string(r.Method()), "path", string(r.Path()), "error", err)
		e = &relay.Error{Code: relay.CodeInternal, Message: "something went wrong here: the node's log tells what"}
	}
	status := statuses[e.Code]
	if status == 0 {
		status = 500
	}
	if e.RetryAfter > 0 {
		r.Response.Header.Set("Retry-After", strconv.Itoa(e.RetryAfter))
	}
	if status == 401 {
		r.Response.Header.Set("WWW-Authenticate", "Bearer")
	}
	r.write(status, envelope{Error: shapeOf(e)})
}

func (r *request) wrongMethod(methods map[string]handler) {
	allowed := strings.Join(slices.Sorted(maps.Keys(methods)), ", ")
	r.Response.Header.Set("Allow", allowed)
	r.fail(&relay.Error{Code: "method_not_allowed", Message: "this path takes " + allowed})
}

// recovered turns a panic into a 500: one request's fault ends no other's.
func (r *request) recovered() {
	if p := recover(); p != nil {
		r.opt.Logger.Error("panic in a request", "path", string(r.Path()), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		r.fail(&relay.Error{Code: relay.CodeInternal, Message: "something went wrong here: the node's log tells what"})
	}
}

// body returns a request's body if its media type is one of types.
func (r *request) body(types ...string) (body []byte, mediaType string, err error) {
	body = r.PostBody()
	mediaType, _, _ = strings.Cut(strings.ToLower(string(r.Request.Header.ContentType())), ";")
	mediaType = strings.TrimSpace(mediaType)
	if !slices.Contains(types, mediaType) {
		return nil, "", &relay.Error{Code: "unsupported_media_type", Message: "send the body with Content-Type: " + strings.Join(types, " or ")}
	}
	if enc := r.Request.Header.ContentEncoding(); len(enc) > 0 && string(enc) != "identity" {
		return nil, "", &relay.Error{Code: "unsupported_media_type", Message: "send the body without Content-Encoding"}
	}
	return body, mediaType, nil
}

// fields walks a JSON object body; its faults become 400s that name the field.
func fields(body []byte, fn func(key string, raw []byte) error) error {
	err := canonical.Members(body, fn)
	if e, ok := err.(*canonical.Error); ok {
		if e.Path != "" {
			return relay.Invalid(e.Path, e.Reason)
		}
		return relay.Invalid("", "the body "+e.Error())
	}
	return err
}

func unknownField(key string) error {
	if len(key) > 64 {
		key = strings.ToValidUTF8(key[:64], "") + "…"
	}
	return relay.Invalid(key, "is not a field of this request: leave it out")
}

func readString(raw []byte, name string, to *string, most int) error {
	var s string
	if raw[0] != '"' || json.Unmarshal(raw, &s) != nil {
		return relay.Invalid(name, "must be a string")
	}
	if len(s) > most {
		return relay.Invalid(name, fmt.Sprintf("is longer than %d bytes", most))
	}
	*to = s
	return nil
}

func readStrings(raw []byte, name string, to *[]string, most int) error {
	if string(raw) == "null" {
		*to = nil
		return nil
	}
	out := []string{}
	err := canonical.Elements(raw, func(raw []byte) error {
		var s string
		if raw[0] != '"' || json.Unmarshal(raw, &s) != nil || len(out) == most {
			return relay.Invalid(name, fmt.Sprintf("must be an array of at most %d strings", most))
		}
		out = append(out, s)
		return nil
	})
	if _, bad := err.(*canonical.Error); bad {
		return relay.Invalid(name, fmt.Sprintf("must be an array of at most %d strings", most))
	}
	*to = out
	return err
}

func readInt[T int | int64](raw []byte, name string, to *T, low, high int64) error {
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || n < low || n > high {
		return relay.Invalid(name, fmt.Sprintf("must be a whole number from %d to %d", low, high))
	}
	*to = T(n)
	return nil
}

func readFloat(raw []byte, name string, to *float64, low, high float64) error {
	var f float64
	if json.Unmarshal(raw, &f) != nil || string(raw) == "null" || !(f >= low && f <= high) {
		return relay.Invalid(name, fmt.Sprintf("must be a number from %g to %g", low, high))
	}
	*to = f
	return nil
}

func readBool(raw []byte, name string, to *bool) error {
	switch string(raw) {
	case "true":
		*to = true
	case "false":
		*to = false
	default:
		return relay.Invalid(name, "must be true or false")
	}
	return nil
}
