// Package access decides who may use the API, and seals the secrets that the
// replicated state carries. It is pure: headers in, an answer out.
package access

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"strings"

	"github.com/omnisales/edgerelay/relay"
)

// DefaultStore is the ordinal of the store `default`.
const DefaultStore uint32 = 1

// Keyring seals values with AES-256-GCM. A value is bound to its place by
// additional data: it opens nowhere else.
type Keyring struct {
	id   string
	aead cipher.AEAD
}

// NewKeyring makes a keyring of one key.
func NewKeyring(key [32]byte) (*Keyring, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(append([]byte("edgerelay key id\x00"), key[:]...))
	return &Keyring{id: hex.EncodeToString(sum[:4]), aead: aead}, nil
}

// Seal encrypts a value under a fresh nonce.
func (k *Keyring) Seal(random io.Reader, plain, aad []byte) (relay.Sealed, error) {
	nonce := make([]byte, k.aead.NonceSize())
	if _, err := io.ReadFull(random, nonce); err != nil {
		return relay.Sealed{}, fmt.Errorf("read randomness: %w", err)
	}
	return relay.Sealed{KeyID: k.id, Nonce: nonce, Ciphertext: k.aead.Seal(nil, nonce, plain, aad)}, nil
}

var errOpen = errors.New("a sealed value does not open: it was moved or damaged")

// Open decrypts a value. Its errors say nothing of the value.
func (k *Keyring) Open(s relay.Sealed, aad []byte) ([]byte, error) {
	if s.KeyID != k.id {
		return nil, fmt.Errorf("a value is sealed with key %s, this node has %s: restore the secret.key that belongs to the data", s.KeyID, k.id)
	}
	if len(s.Nonce) != k.aead.NonceSize() {
		return nil, errOpen
	}
	plain, err := k.aead.Open(nil, s.Nonce, s.Ciphertext, aad)
	if err != nil {
		return nil, errOpen
	}
	return plain, nil
}

// AAD names the place of a sealed value: the webhook and the field.
func AAD(store uint32, webhookID, field string) []byte {
	b := binary.BigEndian.AppendUint32(nil, store)
	b = append(append(b, webhookID...), 0)
	return append(b, field...)
}

// Guard lets requests in.
type Guard struct {
	open bool
	key  [sha256.Size]byte
}

// NewGuard guards with the admin key, or, without one, by where a request
// comes from.
func NewGuard(adminKey string) *Guard {
	return &Guard{open: adminKey == "", key: sha256.Sum256([]byte(adminKey))}
}

// Open says that no key is needed.
func (g *Guard) Open() bool { return g.open }

// Request is what the guard looks at.
type Request struct {
	Host, Origin, SecFetchSite, Authorization string
	// Forwarded: a Forwarded, X-Forwarded-* or Via header is there.
	Forwarded bool
}

// Check returns the store that a request may use. The error is a *relay.Error.
func (g *Guard) Check(r Request) (store uint32, err error) {
	if g.open {
		return DefaultStore, checkLocal(r)
	}
	scheme, key, ok := strings.Cut(r.Authorization, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return 0, &relay.Error{Code: relay.CodeUnauthorized, Message: "send the admin key: Authorization: Bearer …"}
	}
	sum := sha256.Sum256([]byte(strings.TrimSpace(key)))
	if subtle.ConstantTimeCompare(sum[:], g.key[:]) != 1 {
		return 0, &relay.Error{Code: relay.CodeUnauthorized, Message: "the key is not known"}
	}
	return DefaultStore, nil
}

const howToKey = ": without a key the API answers only this machine. Make one (head -c 32 /dev/urandom | base64 > admin.key) and start with --admin-key-file admin.key"

func forbidden(what string) error {
	return &relay.Error{Code: relay.CodeForbidden, Message: what + howToKey}
}

// checkLocal refuses what a browser or a proxy could bring in from elsewhere:
// another site's page, a rebound name, a forwarded request.
func checkLocal(r Request) error {
	switch {
	case !localHost(r.Host):
		return forbidden("the Host is not 127.0.0.1, [::1] or localhost")
	case r.Forwarded:
		return forbidden("the request was forwarded by a proxy")
	case r.SecFetchSite != "" && r.SecFetchSite != "none" && r.SecFetchSite != "same-origin":
		return forbidden("the request comes from another site")
	case r.Origin != "":
		u, err := url.Parse(r.Origin)
		if err != nil || !strings.EqualFold(u.Host, r.Host) || u.Scheme != "http" && u.Scheme != "https" {
			return forbidden("the Origin is another site")
		}
	}
	return nil
}

func localHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && (ip == netip.AddrFrom4([4]byte{127, 0, 0, 1}) || ip == netip.IPv6Loopback())
}
