package webhook

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"log/slog"
	"strconv"
	"strings"
)

const publicPrefix = "whpk_"

// PrivateKey signs by the v1a scheme (Ed25519). It never prints.
type PrivateKey struct{ key ed25519.PrivateKey }

// NewPrivateKey derives the key from a seed of 32 random bytes.
func NewPrivateKey(seed []byte) (*PrivateKey, error) {
	if len(seed) != ed25519.SeedSize {
		return nil, errors.New("a signing key is made of 32 bytes")
	}
	return &PrivateKey{ed25519.NewKeyFromSeed(seed)}, nil
}

// Public is the key that receivers verify with: "whpk_" + base64.
func (k *PrivateKey) Public() string {
	return publicPrefix + base64.StdEncoding.EncodeToString(k.key.Public().(ed25519.PublicKey))
}

// String does not return the key.
func (*PrivateKey) String() string { return "whsk_[redacted]" }

// GoString does not return the key.
func (k *PrivateKey) GoString() string { return k.String() }

// LogValue does not return the key.
func (k *PrivateKey) LogValue() slog.Value { return slog.StringValue(k.String()) }

// AppendV1a appends "v1a," and the signature of a message at a time in unix
// seconds.
func (k *PrivateKey) AppendV1a(dst []byte, id string, timestamp int64, body []byte) []byte {
	dst = append(dst, "v1a,"...)
	return base64.StdEncoding.AppendEncode(dst, ed25519.Sign(k.key, message(id, timestamp, body)))
}

func message(id string, timestamp int64, body []byte) []byte {
	b := make([]byte, 0, len(id)+len(body)+24)
	b = append(append(b, id...), '.')
	b = append(strconv.AppendInt(b, timestamp, 10), '.')
	return append(b, body...)
}

// ParsePublicKey reads "whpk_" + base64 of 32 bytes.
func ParsePublicKey(s string) (ed25519.PublicKey, error) {
	encoded, ok := strings.CutPrefix(s, publicPrefix)
	key, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil || len(key) != ed25519.PublicKeySize {
		return nil, errors.New(`a public key is "whpk_" and the base64 of 32 bytes`)
	}
	return key, nil
}
