package relay

import "time"

// Webhook is a subscription as the meta group stores it. A stored value is
// immutable: a change makes a new one with a higher Version.
type Webhook struct {
	Ordinal  uint32 `json:"ordinal"` // assigned at creation, never reused
	Version  uint64 `json:"version"` // meta index of the last change; guards concurrent updates
	Revision uint32 `json:"revision"`
	Store    uint32 `json:"store"`
	ID       string `json:"id"` // UUID

	Name        string   `json:"name"`
	URL         string   `json:"url"`
	Events      []string `json:"events"`
	Description string   `json:"description,omitempty"`
	Channels    []string `json:"channels,omitempty"`
	IPWhitelist []string `json:"ip_whitelist,omitempty"`
	Signing     []string `json:"signing"`

	Active bool `json:"active"`
	Paused bool `json:"paused,omitempty"`
	// DisabledReason is set when the gateway switched the webhook off.
	DisabledReason string `json:"disabled_reason,omitempty"`

	TimeoutSeconds int   `json:"timeout_seconds"`
	MaxRetries     int   `json:"max_retries"` // attempts in all
	Retry          Retry `json:"retry"`
	MaxInFlight    int   `json:"max_in_flight"`

	// Secrets and header values are sealed: never plain in the state.
	Secret     Sealed            `json:"secret"`
	NextSecret *Sealed           `json:"next_secret,omitempty"` // during a rotation
	GraceEnds  int64             `json:"grace_ends,omitempty"`  // unix seconds
	SigningKey *Sealed           `json:"signing_key,omitempty"` // v1a, ed25519 seed
	PublicKey  string            `json:"public_key,omitempty"`
	Headers    map[string]Sealed `json:"headers,omitempty"`

	CreatedAt int64 `json:"created_at"` // unix seconds
	UpdatedAt int64 `json:"updated_at"`
}

// Sealed is an encrypted value: AES-256-GCM under the key named.
type Sealed struct {
	KeyID      string `json:"k"`
	Nonce      []byte `json:"n"`
	Ciphertext []byte `json:"c"`
}

// Retry is a webhook's schedule: the wait before attempt n+1 is
// InitialDelayMS x Multiplier^(n-1), at most MaxDelayMS, varied by ±Jitter.
type Retry struct {
	InitialDelayMS int64   `json:"initial_delay_ms"`
	MaxDelayMS     int64   `json:"max_delay_ms"`
	Multiplier     float64 `json:"multiplier"`
	Jitter         float64 `json:"jitter"`
}

// DefaultRetry is the guide's schedule: 1 s, 2 s, 4 s, ... at most 60 s.
var DefaultRetry = Retry{InitialDelayMS: 1000, MaxDelayMS: 60_000, Multiplier: 2}

// Defaults of a webhook.
const (
	DefaultTimeoutSeconds = 30
	DefaultMaxRetries     = 3
	DefaultMaxInFlight    = 64
)

// Matches says whether new events may match the webhook: not while it is
// inactive or disabled.
func (w *Webhook) Matches() bool { return w.Active && w.DisabledReason == "" }

// Held says whether its pending deliveries wait.
func (w *Webhook) Held() bool { return !w.Matches() || w.Paused }

// Status is the API's word for it; reason says why where it is not active.
func (w *Webhook) Status() (status, reason string) {
	switch {
	case w.DisabledReason != "":
		return "disabled", w.DisabledReason
	case !w.Active:
		return "disabled", "is_active is false: set it to true to resume"
	case w.Paused:
		return "paused", "paused: deliveries wait until it is resumed"
	}
	return "active", ""
}

// Timeout is the limit of one attempt.
func (w *Webhook) Timeout() time.Duration { return time.Duration(w.TimeoutSeconds) * time.Second }
