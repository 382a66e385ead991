// Package wire makes the HTTP/1.1 requests of deliveries. It is the only code
// that dials a destination.
//
// It guarantees:
//   - every address is checked by the destination policy and the request's
//     whitelist after DNS and before it is dialled, and again before a kept
//     connection is used for a request with a whitelist;
//   - one deadline covers an attempt from DNS to the last response header, and
//     what is read of the body;
//   - a redirect is never followed, and at most 16 KB of a body is kept;
//   - a request is sent a second time only when a reused connection ended
//     before one byte of an answer, and then once.
//
// An attempt runs on its caller's goroutine and starts none of its own. The
// one goroutine of the package closes idle connections; New starts it and
// Close waits for it.
package wire
