package relay

// Receipt is the answer to one published event.
type Receipt struct {
	ID        string
	Event     string
	CreatedAt int64 // unix seconds
	Matched   int   // webhooks it goes to
	Duplicate bool
	Warnings  []Warning
	Err       *Error // of an item of a batch
}

// Warning is about something that is allowed but will probably hurt.
type Warning struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Field   string `json:"field,omitempty"`
}
