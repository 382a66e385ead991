package api

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/omnisales/edgerelay/relay"
	"github.com/omnisales/edgerelay/relay/catalogue"
	"github.com/omnisales/edgerelay/relay/destination"
	"github.com/omnisales/edgerelay/sdk/webhook"
)

// webhookShape is a webhook as the API shows it.
type webhookShape struct {
	ID             string            `json:"id"`
	Name           string            `json:"name"`
	URL            string            `json:"url"`
	Secret         string            `json:"secret,omitempty"`
	Events         []string          `json:"events"`
	Description    string            `json:"description"`
	IsActive       bool              `json:"is_active"`
	Paused         bool              `json:"paused"`
	Headers        map[string]string `json:"headers"`
	IPWhitelist    []string          `json:"ip_whitelist"`
	Channels       []string          `json:"channels"`
	Filter         *string           `json:"filter"`
	Signing        []string          `json:"signing"`
	PublicKey      string            `json:"public_key,omitempty"`
	TimeoutSeconds int               `json:"timeout_seconds"`
	MaxRetries     int               `json:"max_retries"`
	Retry          relay.Retry       `json:"retry"`
	RateLimit      *struct{}         `json:"rate_limit"`
	MaxInFlight    int               `json:"max_in_flight"`
	Ordered        bool              `json:"ordered"`
	Plugins        []struct{}        `json:"plugins"`
	Status         string            `json:"status"`
	StatusReason   *string           `json:"status_reason"`
	RotationEnds   any               `json:"secret_rotation_ends_at,omitempty"`
	CreatedAt      string            `json:"created_at"`
	UpdatedAt      string            `json:"updated_at"`
}

func (r *request) shape(h *relay.Webhook) (*webhookShape, error) {
	status, reason := h.Status()
	s := &webhookShape{ID: h.ID, Name: h.Name, URL: h.URL, Events: h.Events, Description: h.Description, IsActive: h.Active && h.DisabledReason == "", Paused: h.Paused,
		Headers: map[string]string{}, IPWhitelist: orEmpty(h.IPWhitelist), Channels: orEmpty(h.Channels), Signing: h.Signing, PublicKey: h.PublicKey,
		TimeoutSeconds: h.TimeoutSeconds, MaxRetries: h.MaxRetries, Retry: h.Retry, MaxInFlight: h.MaxInFlight, Plugins: []struct{}{}, Status: status,
		CreatedAt: relay.FormatTime(h.CreatedAt), UpdatedAt: relay.FormatTime(h.UpdatedAt)}
	if reason != "" {
		s.StatusReason = &reason
	}
	if h.NextSecret != nil && r.opt.Now().Unix() < h.GraceEnds {
		s.RotationEnds = relay.FormatTime(h.GraceEnds)
	}
	for name, sealed := range h.Headers {
		value, err := r.open(h, "header:"+name, sealed)
		if err != nil {
			return nil, fmt.Errorf("open header: %w", err)
		}
		s.Headers[name] = string(value)
	}
	return s, nil
}

func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// input reads the JSON of a webhook into h: fields that are not given stay.
type input struct {
	*request
	h        *relay.Webhook
	create   bool
	secret   *webhook.Secret // given at creation
	warnings []relay.Warning
}

func (in *input) read(body []byte) error {
	if err := fields(body, in.field); err != nil {
		return err
	}
	h := in.h
	switch {
	case strings.TrimSpace(h.Name) == "":
		return relay.Invalid("name", "is required: a name that tells what it is for")
	case h.URL == "":
		return relay.Invalid("url", "is required: the http or https URL that receives the events")
	case len(h.Events) == 0:
		return relay.Invalid("events", "is required: types such as order.created, order.* or *")
	case h.Retry.MaxDelayMS < h.Retry.InitialDelayMS:
		return relay.Invalid("retry.max_delay_ms", "must not be below initial_delay_ms")
	}
	return in.keys()
}

func (in *input) field(key string, raw []byte) error {
	h := in.h
	switch key {
	case "name":
		return readString(raw, key, &h.Name, 200)
	case "url":
		return in.url(raw)
	case "events":
		return in.events(raw)
	case "description":
		if string(raw) == "null" {
			h.Description = ""
			return nil
		}
		return readString(raw, key, &h.Description, 1000)
	case "is_active":
		if err := readBool(raw, key, &h.Active); err != nil {
			return err
		}
		if h.Active {
			h.DisabledReason = ""
		}
		return nil
	case "paused":
		return readBool(raw, key, &h.Paused)
	case "headers":
		return in.headers(raw)
	case "ip_whitelist":
		return in.whitelist(raw)
	case "channels":
		return in.channels(raw)
	case "signing":
		return in.signing(raw)
	case "timeout_seconds":
		return readInt(raw, key, &h.TimeoutSeconds, 1, 120)
	case "max_retries":
		return readInt(raw, key, &h.MaxRetries, 1, 50)
	case "retry":
		return in.retry(raw)
	case "max_in_flight":
		return readInt(raw, key, &h.MaxInFlight, 1, 1000)
	}
	return in.otherField(key, raw)
}

// otherField takes what is not a setting: the secret at creation, what only
// the gateway sets, and what this version does not have yet.
func (in *input) otherField(key string, raw []byte) error {
	switch key {
	case "secret":
		if !in.create {
			return nil
		}
		var text string
		if err := readString(raw, key, &text, 200); err != nil {
			return err
		}
		var err error
		if in.secret, err = webhook.ParseSecret(text); err != nil {
			return relay.Invalid(key, err.Error()+": or leave it out and get one")
		}
		return nil
	case "id", "status", "status_reason", "created_at", "updated_at", "public_key", "secret_rotation_ends_at":
		if in.create {
			return relay.Invalid(key, "is set by the gateway: leave it out")
		}
		return nil
	case "filter", "rate_limit", "ordered", "plugins":
		if v := string(raw); v == "null" || v == "false" || v == "[]" || v == `""` {
			return nil
		}
		return relay.Invalid(key, "is not supported by this version: leave it out")
	}
	return unknownField(key)
}

func (in *input) url(raw []byte) error {
	var s string
	if err := readString(raw, "url", &s, destination.MaxURL); err != nil {
		return err
	}
	t, err := destination.ParseURL(s, in.opt.RequireHTTPS)
	if err != nil {
		return err
	}
	in.h.URL = s
	if t.IP.IsValid() {
		if err := in.opt.Policy.Check(t.IP, nil); err != nil {
			in.warn("destination_refused", "url", err.Error()+": deliveries will fail")
		}
	} else if !t.TLS && t.Host != "localhost" {
		in.warn("insecure_url", "url", "http sends the events in the clear: use https")
	}
	return nil
}

func (in *input) warn(code, field, message string) {
	in.warnings = append(in.warnings, relay.Warning{Code: code, Field: field, Message: message})
}

// notices are the gateway's own types.
var notices = []string{"webhook.failing", "webhook.disabled", "delivery.dead"}

func (in *input) events(raw []byte) error {
	var list []string
	if err := readStrings(raw, "events", &list, 100); err != nil {
		return err
	}
	if len(list) == 0 {
		return relay.Invalid("events", "must name 1 to 100 types such as order.created, order.* or *")
	}
	var out []string
	for _, e := range list {
		if !known(e) {
			if len(e) > 64 {
				e = strings.ToValidUTF8(e[:64], "") + "…"
			}
			return relay.Invalid("events", fmt.Sprintf("%q is no known type: GET /api/event-types lists them; order.* and * work too", e))
		}
		if !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	in.h.Events = out
	return nil
}

func known(pattern string) bool {
	if pattern == "*" || slices.Contains(notices, pattern) {
		return true
	}
	for _, t := range catalogue.All() {
		if matches(pattern, t.Name) {
			return true
		}
	}
	return pattern == "webhook.*" || pattern == "delivery.*"
}

// matches says whether a pattern of a webhook's events covers a type.
func matches(pattern, name string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok && (prefix == "" || strings.HasSuffix(prefix, ".")) {
		return strings.HasPrefix(name, prefix)
	}
	return pattern == name
}

// Names that are ours or the connection's.
var ownHeaders = []string{"host", "user-agent", "content-type", "content-length", "content-encoding", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "expect"}

func (in *input) headers(raw []byte) error {
	sealed := map[string]relay.Sealed{}
	if string(raw) == "null" {
		in.h.Headers = nil
		return nil
	}
	lower := map[string]bool{}
	err := fields(raw, func(name string, raw []byte) error {
		var value string
		low := strings.ToLower(name)
		switch {
		case len(sealed) == 50:
			return relay.Invalid("headers", "must be at most 50")
		case !token(name):
			return relay.Invalid("headers", "has a name that is no HTTP header name")
		case slices.Contains(ownHeaders, low) || strings.HasPrefix(low, "x-webhook-") || strings.HasPrefix(low, "webhook-"):
			return relay.Invalid("headers", name+" is set by the gateway: choose another name")
		case lower[low]:
			return relay.Invalid("headers", name+" is given twice")
		}
		lower[low] = true
		if err := readString(raw, "headers."+name, &value, 4096); err != nil {
			return err
		}
		for i := range len(value) {
			if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
				return relay.Invalid("headers."+name, "holds a control character")
			}
		}
		var err error
		sealed[name], err = in.seal(in.h, "header:"+name, []byte(value))
		return err
	})
	in.h.Headers = sealed
	return err
}

func token(s string) bool {
	if s == "" || len(s) > 100 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return true
}

func (in *input) whitelist(raw []byte) error {
	var list []string
	if err := readStrings(raw, "ip_whitelist", &list, 100); err != nil {
		return err
	}
	prefixes, err := destination.ParseWhitelist(list)
	if err != nil {
		return relay.Invalid("ip_whitelist", err.Error())
	}
	in.h.IPWhitelist = list
	for i, p := range prefixes {
		if in.opt.Policy.Unreachable(p) {
			in.warn("ip_unreachable", "ip_whitelist", list[i]+" can never be reached from here: no delivery goes there")
		}
	}
	return nil
}

func (in *input) channels(raw []byte) error {
	var list []string
	if err := readStrings(raw, "channels", &list, 10); err != nil {
		return err
	}
	for _, c := range list {
		if !relay.ValidChannel(c) {
			return relay.Invalid("channels", "must be names of 1 to 64 characters of A-Z a-z 0-9 _ . : -")
		}
	}
	in.h.Channels = list
	return nil
}

func (in *input) signing(raw []byte) error {
	var list []string
	if err := readStrings(raw, "signing", &list, 2); err != nil {
		return err
	}
	if len(list) == 0 || list[0] != "v1" || len(list) == 2 && list[1] != "v1a" {
		return relay.Invalid("signing", `must be ["v1"] or ["v1","v1a"]`)
	}
	in.h.Signing = list
	return nil
}

func (in *input) retry(raw []byte) error {
	c := &in.h.Retry
	return fields(raw, func(key string, raw []byte) error {
		name := "retry." + key
		switch key {
		case "initial_delay_ms":
			return readInt(raw, name, &c.InitialDelayMS, 0, 86_400_000)
		case "max_delay_ms":
			return readInt(raw, name, &c.MaxDelayMS, 0, 86_400_000)
		case "multiplier":
			return readFloat(raw, name, &c.Multiplier, 1, 10)
		case "jitter":
			return readFloat(raw, name, &c.Jitter, 0, 1)
		}
		return unknownField(name)
	})
}

// keys makes the signing key that v1a asks for, once.
func (in *input) keys() error {
	h := in.h
	if !slices.Contains(h.Signing, "v1a") {
		h.SigningKey, h.PublicKey = nil, ""
		return nil
	}
	if h.SigningKey != nil {
		return nil
	}
	seed := make([]byte, 32)
	if _, err := io.ReadFull(in.opt.Random, seed); err != nil {
		return fmt.Errorf("read randomness: %w", err)
	}
	key, err := webhook.NewPrivateKey(seed)
	if err != nil {
		return err
	}
	sealed, err := in.seal(h, "signing_key", seed)
	h.SigningKey, h.PublicKey = &sealed, key.Public()
	return err
}
