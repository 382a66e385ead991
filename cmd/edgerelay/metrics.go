package main

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/omnisales/edgerelay/cluster"
	"github.com/omnisales/edgerelay/relay/deliver"
)

// metrics gathers the node's numbers for Prometheus. There is no series per
// webhook: a node has too many, and their names are a store's own.
func metrics(node *cluster.Node, engine *deliver.Engine) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &collector{node, engine})
	return r
}

type collector struct {
	node   *cluster.Node
	engine *deliver.Engine
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("edgerelay_"+name, help, labels, nil)
}

var (
	descInfo       = desc("build_info", "Always 1; the version is a label.", "version")
	descAttempts   = desc("attempts_total", "Attempts made.", "result")
	descSeconds    = desc("attempt_seconds_total", "Time spent in attempts.")
	descRetried    = desc("deliveries_retried_total", "Deliveries put off after a failed attempt.")
	descDead       = desc("deliveries_dead_total", "Deliveries that went to the dead-letter queue.")
	descInFlight   = desc("attempts_in_flight", "Attempts under way.")
	descQueued     = desc("deliveries_queued", "Deliveries in memory that wait for their turn.")
	descWindow     = desc("window_events", "Events in memory above the cursor.")
	descWindowSize = desc("window_bytes", "Bytes of their bodies.")
	descWebhooks   = desc("webhooks", "Webhooks that had deliveries since the start.", "state")
	descDisk       = desc("disk_bytes", "Size of a database.", "database")
	descDebt       = desc("compaction_debt_bytes", "Bytes that compaction still has to move.")
	descFlushes    = desc("flushes_total", "Flushes of the state.")
	descLeader     = desc("group_leader", "1 if this node leads the group.", "group")
	descApplied    = desc("group_applied_index", "Last entry in the state.", "group")
	descTerm       = desc("group_term", "Raft's term.", "group")
	descPending    = desc("group_pending_bytes", "Proposals not yet answered.", "group")
)

// Describe sends what Collect collects.
func (c *collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect reads the numbers of this moment.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge(descInfo, 1, version())
	s := c.engine.Stats()
	count(descAttempts, float64(s.Succeeded), "succeeded")
	count(descAttempts, float64(s.Failed), "failed")
	count(descSeconds, s.AttemptSeconds)
	count(descRetried, float64(s.Retried))
	count(descDead, float64(s.Dead))
	gauge(descInFlight, float64(s.InFlight))
	gauge(descQueued, float64(s.Queued))
	gauge(descWindow, float64(s.WindowEvents))
	gauge(descWindowSize, float64(s.WindowBytes))
	gauge(descWebhooks, float64(s.Lanes-s.Held), "delivering")
	gauge(descWebhooks, float64(s.Held), "held")
	gauge(descWebhooks, float64(s.Backlog), "backlog")
	n := c.node.Metrics()
	gauge(descDisk, float64(n.LogBytes), "log")
	gauge(descDisk, float64(n.StateBytes), "state")
	gauge(descDebt, float64(n.CompactionDebt))
	count(descFlushes, float64(n.Flushes))
	for _, g := range n.Groups {
		id := strconv.Itoa(int(g.ID))
		leader := 0.0
		if g.Leader {
			leader = 1
		}
		gauge(descLeader, leader, id)
		gauge(descApplied, float64(g.Applied), id)
		gauge(descTerm, float64(g.Term), id)
		gauge(descPending, float64(g.PendingBytes), id)
	}
}
