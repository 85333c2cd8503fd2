package daemon

import (
	"fmt"
	"path/filepath"
	"runtime/debug"
	"time"

	"mailcutover/internal/config"
	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/proxy/deliver"
	"mailcutover/routing"
	"mailcutover/spool"
	"mailcutover/spool/dsn"
	"mailcutover/spool/queue"
)

// openSpool opens the ledger and the spool.
func (d *Daemon) openSpool(cfg *config.Config) error {
	limit := longestLimit(cfg)
	o := ledger.Options{
		Dir: filepath.Join(cfg.Data, "ledger"), Boot: ledger.BootID(filepath.Join(cfg.Data, "ledger")), MaxAge: cfg.Ledger.MaxAge, MaxBytes: int64(cfg.Ledger.Bytes),
		DoubtFor: limit, Logger: d.logger,
	}
	if cfg.Ledger.HashKey.IsSet() {
		o.HashKey = []byte(cfg.Ledger.HashKey.Reveal())
	}
	var err error
	if d.ledger, err = ledger.Open(o); err != nil {
		return fmt.Errorf("open the ledger: %w", err)
	}
	keys, err := diskKeys(cfg)
	if err != nil {
		return err
	}
	d.spool, err = spool.Open(spool.Options{
		Dir: filepath.Join(cfg.Data, "spool"), Node: cfg.Node, Alarms: d.alarms, Logger: d.logger, Keys: keys,
		Bounds: d.bounds(), QuarantineAge: cfg.Spool.QuarantineAge,
	})
	if err != nil {
		return fmt.Errorf("open the spool: %w", err)
	}
	// Reading a large spool leaves garbage of several times what is kept of it, and the
	// runtime would hold on to that memory until the next time it is needed.
	if d.spool.Status().Opened.Messages >= manyMessages {
		debug.FreeOSMemory()
	}
	return nil
}

// manyMessages in the spool make a start worth a collection of its own, of some 10 ms.
const manyMessages = 10_000

// rememberDoubts tells the gate what was under way when the last process ended
// (docs/architecture/switch.md, node rule 8), and returns until when the messages concerned have
// to rest.
func (d *Daemon) rememberDoubts(cfg *config.Config) map[mail.TransactionID]time.Time {
	limits := make(map[routing.PlatformID]time.Duration)
	for i := range cfg.Platforms {
		limits[cfg.Platforms[i].ID] = cfg.Platforms[i].ConnectionLimit
	}
	doubts := make(map[mail.TransactionID]time.Time)
	for _, i := range d.ledger.InDoubt() {
		// The process that sent the dot ended before this one began: that is as late as
		// the platform can have begun to count.
		limit, ok := limits[i.Platform]
		if !ok {
			limit = longestLimit(cfg)
		}
		until := d.began.Add(limit)
		doubts[i.Transaction] = until
		for _, r := range i.Recipients {
			d.gate.Remember(r.Agency, r.Epoch, until)
		}
		d.logger.Warn("message in doubt since before the start", "transaction", i.Transaction, "platform", i.Platform, "until", until)
	}
	if since, unknown := d.ledger.Unknown(); unknown {
		d.gate.RememberAny(d.began.Add(longestLimit(cfg)))
		d.alarms.Raise("ledger-unknown", fmt.Sprintf("The machine lost power, or the ledger's end can't be read: what was delivered since %s is not certain. Agencies drain only after the platforms' connection limits have passed.", since.Format(time.RFC3339)))
	}
	return doubts
}

// longestLimit returns the longest connection limit of the platforms.
func longestLimit(cfg *config.Config) (limit time.Duration) {
	for i := range cfg.Platforms {
		limit = max(limit, cfg.Platforms[i].ConnectionLimit)
	}
	return limit
}

// startQueue begins to send what lies in the spool.
func (d *Daemon) startQueue(cfg *config.Config, doubts map[mail.TransactionID]time.Time) error {
	q, err := queue.New(queue.Options{
		Store: queue.FromSpool(d.spool), Router: d.gate, Sender: d.sender,
		Alarms: d.alarms, Observer: d.metrics.Queue(), Ledger: d.ledger, Logger: d.logger,
		Retry: queue.Retry{
			First: cfg.Spool.Retry.First, Max: cfg.Spool.Retry.Max, Life: cfg.Spool.Retry.Life, Patience: cfg.Spool.Retry.Patience,
		},
		Notices: queue.Notices{
			Settings:   dsn.Settings{Host: cfg.Node, OriginalBytes: int(cfg.Notices.OriginalBytes), Contact: cfg.Notices.Contact},
			Platform:   routing.PlatformID(cfg.Notices.Platform),
			DelayAfter: cfg.Notices.DelayAfter,
		},
		Rate: float64(cfg.Spool.Rate), Doubts: doubts,
	})
	if err != nil {
		return err
	}
	d.queue.Store(q)
	d.parts.Go(d.watchSpool)
	d.part("queue", func() error { return q.Run(d.ctx) })
	return nil
}

// senderOptions are those of the queue's way to the platforms.
func (d *Daemon) senderOptions(p *platforms) deliver.Options {
	o := deliver.Options{Answers: d.answers, Gate: d.gate, Ledger: d.ledger, Retained: d.retainer(), Alarms: d.alarms, Logger: d.logger}
	o.Platforms = p.list
	return o
}

// Spool returns how much lies in the spool, in all.
func (d *Daemon) Spool() spool.Counts {
	all, _ := d.spool.Counts()
	return all
}

// putOff returns the agencies whose mail is not held.
func putOff(cfg *config.Config) map[routing.AgencyID]struct{} {
	agencies := make(map[routing.AgencyID]struct{})
	for _, id := range cfg.Spool.PutOff {
		agencies[id] = struct{}{}
	}
	return agencies
}
