// Package relay holds the words of the gateway: the types, states and errors
// that every other package speaks in. It does no I/O and owns no goroutine.
//
// The words, each with one meaning:
//
//	store      a tenant; owns webhooks, events and keys, and sees nobody else's
//	event      a fact a store published ("order.created"), with an id and data
//	webhook    a subscription of one URL to event types
//	ordinal    the small number by which the replicated state names a webhook
//	revision   the part of a webhook that is fixed when an event is accepted
//	delivery   one event on its way to one webhook
//	attempt    one HTTP request of a delivery
//	outcome    what an attempt led to: succeeded, retrying, dead, ...
//	evidence   what is kept of an attempt beside its outcome: headers, body, phases
//	failure    a delivery in the dead-letter queue
//	group      a raft group; the meta group, or a partition
//	partition  a raft group that accepts and delivers a share of the events
//	sequence   an event's place in its partition's commit order
//	cursor     the sequence below which every delivery is settled or parked
//	parked     pending, but named by a row of its own (a retry timer or a backlog row)
//	node       a process; replica: a node's copy of a group
package relay
