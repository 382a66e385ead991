package relay

import "errors"

// Error is an error that a user may see: a stable code, a message that says
// what to do, and the field at fault where there is one. Its HTTP status is
// chosen once, from the code, by the API.
type Error struct {
	Code    string
	Message string
	Field   string
	// RetryAfter is the number of seconds after which trying again makes
	// sense; 0 where it does not.
	RetryAfter int
	// EventID is set on outcome_unknown: publishing again with it is safe.
	EventID string
}

func (e *Error) Error() string {
	if e.Field != "" {
		return e.Code + ": " + e.Field + ": " + e.Message
	}
	return e.Code + ": " + e.Message
}

// The codes.
const (
	CodeInvalid        = "invalid"
	CodeUnauthorized   = "unauthorized"
	CodeForbidden      = "forbidden"
	CodeNotFound       = "not_found"
	CodeConflict       = "conflict"
	CodeIDConflict     = "id_conflict"
	CodeTooLarge       = "too_large"
	CodeOverloaded     = "overloaded"
	CodeUnavailable    = "unavailable"
	CodeOutcomeUnknown = "outcome_unknown"
	CodeInternal       = "internal"
)

// Invalid is a 400 that names the field.
func Invalid(field, message string) *Error {
	return &Error{Code: CodeInvalid, Field: field, Message: message}
}

// NotFound is a 404; what is a noun phrase such as "no such webhook".
func NotFound(what string) *Error { return &Error{Code: CodeNotFound, Message: what} }

// AsError finds the *Error in err's chain, or reports false.
func AsError(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}
