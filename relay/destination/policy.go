// Package destination decides where a webhook may point: which URLs are
// accepted, and which addresses may be dialled once a name is resolved. It is
// pure; the dialer asks Policy.Check for every connection.
package destination

import (
	"fmt"
	"net/netip"
	"strings"
)

// Policy is the operator's. The zero value allows public addresses only.
type Policy struct {
	// Allow are ranges that are allowed although they are not public.
	Allow []netip.Prefix
	// AllowLoopback allows 127.0.0.0/8 and ::1.
	AllowLoopback bool
}

// Refused says why an address is not dialled.
type Refused struct {
	Addr   netip.Addr
	Reason string
}

func (r *Refused) Error() string { return r.Addr.String() + " is " + r.Reason }

// special are the ranges that are not public: the IANA special-purpose
// address registries for IPv4 and IPv6 (RFC 6890 and its updates), multicast,
// and what was once reserved. Metadata services live in link-local and
// unique-local addresses.
var special = []struct {
	prefix netip.Prefix
	name   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "unspecified"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private"},
	{netip.MustParsePrefix("100.64.0.0/10"), "carrier-grade NAT"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private"},
	{netip.MustParsePrefix("192.0.0.0/24"), "reserved"},
	{netip.MustParsePrefix("192.0.2.0/24"), "documentation"},
	{netip.MustParsePrefix("192.31.196.0/24"), "reserved"},
	{netip.MustParsePrefix("192.52.193.0/24"), "reserved"},
	{netip.MustParsePrefix("192.88.99.0/24"), "reserved"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private"},
	{netip.MustParsePrefix("192.175.48.0/24"), "reserved"},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarking"},
	{netip.MustParsePrefix("198.51.100.0/24"), "documentation"},
	{netip.MustParsePrefix("203.0.113.0/24"), "documentation"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},
	{netip.MustParsePrefix("::/128"), "unspecified"},
	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("100::/64"), "discard-only"},
	{netip.MustParsePrefix("100:0:0:1::/64"), "reserved"},
	{netip.MustParsePrefix("2001::/23"), "reserved"},
	{netip.MustParsePrefix("2001:db8::/32"), "documentation"},
	{netip.MustParsePrefix("2620:4f:8000::/48"), "reserved"},
	{netip.MustParsePrefix("3fff::/20"), "documentation"},
	{netip.MustParsePrefix("5f00::/16"), "reserved"},
	{netip.MustParsePrefix("fc00::/7"), "unique-local"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("fec0::/10"), "site-local"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
}

// carriers are the IPv6 ranges that carry an IPv4 address, and where in the
// sixteen bytes it stands: mapped and compatible, NAT64 (RFC 6052, RFC 8215),
// 6to4 (RFC 3056). Teredo is in 2001::/23.
var carriers = []struct {
	prefix netip.Prefix
	at     int
}{
	{netip.MustParsePrefix("::ffff:0:0/96"), 12},
	{netip.MustParsePrefix("::ffff:0:0:0/96"), 12},
	{netip.MustParsePrefix("::/96"), 12},
	{netip.MustParsePrefix("64:ff9b::/96"), 12},
	{netip.MustParsePrefix("64:ff9b:1::/48"), 12},
	{netip.MustParsePrefix("2002::/16"), 2},
}

// Check says whether addr may be dialled; its error is a *Refused. whitelist
// (a webhook's ip_whitelist) narrows what the policy allows, never widens it.
func (p Policy) Check(addr netip.Addr, whitelist []netip.Prefix) error {
	if addr.Zone() != "" {
		return &Refused{addr, "an address with a zone, which is not dialled"}
	}
	if inner := embedded(addr); inner.IsValid() && !p.allowed(addr) {
		if err := p.check(inner); err != nil {
			return &Refused{addr, "a form of " + err.Error()}
		}
	} else if err := p.check(addr); err != nil {
		return err
	}
	addr = addr.Unmap()
	if len(whitelist) > 0 && !contains(whitelist, addr) {
		return &Refused{addr, "not in the webhook's ip_whitelist"}
	}
	return nil
}

func (p Policy) allowed(addr netip.Addr) bool { return contains(p.Allow, addr) }

func (p Policy) check(addr netip.Addr) error {
	if !addr.IsValid() {
		return &Refused{addr, "no address"}
	}
	if p.allowed(addr) || p.AllowLoopback && addr.IsLoopback() {
		return nil
	}
	for _, s := range special {
		if s.prefix.Contains(addr) {
			return &Refused{addr, s.name + ": an operator may allow it with --allow-destinations"}
		}
	}
	return nil
}

// embedded is the IPv4 address that an IPv6 address stands for, if any.
func embedded(addr netip.Addr) netip.Addr {
	if addr.Is4() || addr == netip.IPv6Unspecified() || addr == netip.IPv6Loopback() {
		return netip.Addr{}
	}
	b := addr.As16()
	for _, c := range carriers {
		if addr.Is4In6() || c.prefix.Contains(addr) {
			at := c.at
			if addr.Is4In6() {
				at = 12
			}
			return netip.AddrFrom4([4]byte(b[at : at+4]))
		}
	}
	return netip.Addr{}
}

func contains(prefixes []netip.Prefix, addr netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// Unreachable says that no address of the prefix is ever dialled: it lies
// within a refused range, and no allowed range touches it.
func (p Policy) Unreachable(prefix netip.Prefix) bool {
	for _, a := range p.Allow {
		if a.Overlaps(prefix) {
			return false
		}
	}
	if p.AllowLoopback && prefix.Addr().IsLoopback() {
		return false
	}
	if inner := embedded(prefix.Addr()); inner.IsValid() && prefix.IsSingleIP() {
		return p.check(inner) != nil
	}
	for _, s := range special {
		if s.prefix.Bits() <= prefix.Bits() && s.prefix.Contains(prefix.Addr()) {
			return true
		}
	}
	return false
}

// ParseAllow reads --allow-destinations: "10.0.0.0/8,192.168.1.7".
func ParseAllow(s string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, entry := range strings.Split(s, ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		p, err := parsePrefix(entry)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("it names no range: give CIDR ranges such as 10.0.0.0/8")
	}
	return out, nil
}

// ParseWhitelist reads a webhook's ip_whitelist: addresses and CIDR ranges.
func ParseWhitelist(entries []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for i, entry := range entries {
		p, err := parsePrefix(entry)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", i+1, err)
		}
		out = append(out, p)
	}
	return out, nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
		}
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("%q is no IP address and no CIDR range such as 203.0.113.0/24", s)
	}
	a = a.Unmap()
	return netip.PrefixFrom(a, a.BitLen()), nil
}
