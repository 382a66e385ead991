package api

import (
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"github.com/omnisales/edgerelay/relay"
)

// page reads ?limit= and ?cursor=.
func (r *request) page() (limit int, cursor []uint64, err error) {
	limit = 50
	if v := string(r.QueryArgs().Peek("limit")); v != "" {
		if limit, err = strconv.Atoi(v); err != nil || limit < 1 || limit > 200 {
			return 0, nil, relay.Invalid("limit", "must be from 1 to 200")
		}
	}
	cursor, err = parseCursor(string(r.QueryArgs().Peek("cursor")))
	return limit, cursor, err
}

// A cursor is base64url of "1" and numbers, between dots: opaque to users,
// versioned for us.
func formatCursor(numbers []uint64) string {
	b := []byte("1")
	for _, n := range numbers {
		b = strconv.AppendUint(append(b, '.'), n, 10)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func parseCursor(s string) (numbers []uint64, err error) {
	if s == "" {
		return nil, nil
	}
	bad := relay.Invalid("cursor", "is not a next_cursor of this list: start without one")
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return nil, bad
	}
	parts := strings.Split(string(b), ".")
	if parts[0] != "1" || len(parts) < 2 || len(parts) > 1000 {
		return nil, bad
	}
	for _, p := range parts[1:] {
		n, err := strconv.ParseUint(p, 10, 64)
		if err != nil {
			return nil, bad
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}

// parseTime reads RFC 3339 or unix seconds, to unix ms.
func parseTime(s, name string) (int64, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n > -1<<40 && n < 1<<40 {
		return n * 1000, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return 0, relay.Invalid(name, "must be a time as RFC 3339 has it, or unix seconds")
	}
	return t.UnixMilli(), nil
}

func (r *request) timeArg(name string, otherwise int64) (int64, error) {
	v := string(r.QueryArgs().Peek(name))
	if v == "" {
		return otherwise, nil
	}
	return parseTime(v, name)
}

// at formats unix ms with its milliseconds; nil for none.
func at(ms int64) any {
	if ms == 0 {
		return nil
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
}
