package access

import (
	"bytes"
	"crypto/rand"
	"errors"
	"strings"
	"testing"

	"github.com/omnisales/edgerelay/relay"
)

func code(err error) string {
	var e *relay.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func TestOpenAPIAnswersThisMachineOnly(t *testing.T) {
	g := NewGuard("")
	for name, r := range map[string]Request{
		"curl": {Host: "127.0.0.1:8080"}, "name": {Host: "localhost:8080"}, "ipv6": {Host: "[::1]:8080"}, "no port": {Host: "localhost"}, "bare ipv6": {Host: "[::1]"},
		"own page": {Host: "localhost:8080", Origin: "http://localhost:8080", SecFetchSite: "same-origin"}, "typed": {Host: "127.0.0.1:8080", SecFetchSite: "none"},
	} {
		if store, err := g.Check(r); err != nil || store != DefaultStore {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, r := range map[string]Request{
		"rebound name": {Host: "evil.example:8080"}, "no host": {}, "lan": {Host: "192.168.1.5:8080"}, "suffix": {Host: "localhost.evil.example"}, "other loopback": {Host: "127.0.0.2"},
		"foreign page": {Host: "localhost:8080", Origin: "https://evil.example"}, "other port": {Host: "localhost:8080", Origin: "http://localhost:3000"}, "opaque": {Host: "localhost", Origin: "null"},
		"cross-site": {Host: "localhost:8080", SecFetchSite: "cross-site"}, "same-site": {Host: "localhost:8080", SecFetchSite: "same-site"}, "proxy": {Host: "localhost:8080", Forwarded: true},
	} {
		if _, err := g.Check(r); code(err) != relay.CodeForbidden || !strings.Contains(err.Error(), "--admin-key-file") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAdminKey(t *testing.T) {
	g := NewGuard("0123456789abcdef")
	for _, a := range []string{"Bearer 0123456789abcdef", "bearer 0123456789abcdef "} {
		if store, err := g.Check(Request{Host: "anything", Authorization: a, Forwarded: true}); err != nil || store != DefaultStore {
			t.Errorf("%q: %v", a, err)
		}
	}
	for _, a := range []string{"", "Bearer", "Bearer ", "Bearer 0123456789abcde", "Basic 0123456789abcdef", "0123456789abcdef"} {
		if _, err := g.Check(Request{Host: "localhost", Authorization: a}); code(err) != relay.CodeUnauthorized || strings.Contains(err.Error(), "0123456789abcde") {
			t.Errorf("%q: %v", a, err)
		}
	}
}

func TestSealedValuesOpenInTheirPlaceOnly(t *testing.T) {
	k, err := NewKeyring([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	place := AAD(1, "hook", "secret")
	s, err := k.Seal(rand.Reader, []byte("whsec_x"), place)
	if err != nil || bytes.Contains(s.Ciphertext, []byte("whsec")) {
		t.Fatal(err)
	}
	if plain, err := k.Open(s, place); err != nil || string(plain) != "whsec_x" {
		t.Errorf("%q %v", plain, err)
	}
	other, _ := NewKeyring([32]byte{2})
	damaged := s
	damaged.Ciphertext = append([]byte{}, s.Ciphertext...)
	damaged.Ciphertext[0] ^= 1
	for name, open := range map[string]func() ([]byte, error){
		"another store":   func() ([]byte, error) { return k.Open(s, AAD(2, "hook", "secret")) },
		"another webhook": func() ([]byte, error) { return k.Open(s, AAD(1, "hook2", "secret")) },
		"another key":     func() ([]byte, error) { return other.Open(s, place) },
		"damaged":         func() ([]byte, error) { return k.Open(damaged, place) },
		"nothing":         func() ([]byte, error) { return k.Open(relay.Sealed{KeyID: s.KeyID}, place) },
	} {
		if plain, err := open(); err == nil {
			t.Errorf("%s opened: %q", name, plain)
		}
	}
}
