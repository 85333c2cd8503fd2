package page

import (
	"sync"
	"time"

	"mailcutover/admin"
	"mailcutover/page/chart"
)

const (
	sampleEvery = 10 * time.Second
	samples     = 360 // an hour
)

// Measures are counts of this node.
type Measures struct {
	Delivered map[string]uint64 // recipients, by platform, since the start
	Held      int               // messages in the spool that are held
	Sessions  int
}

type sample struct {
	at time.Time
	Measures
}

// history is the last hour of a node.
type history struct {
	mu  sync.Mutex
	all []sample
}

func (h *history) add(s sample) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.all) == samples {
		h.all = append(h.all[:0], h.all[1:]...)
	}
	h.all = append(h.all, s)
}

func (h *history) look() []sample {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]sample(nil), h.all...)
}

// sample measures until the page is shut down.
func (p *Page) sample() {
	if p.Measures == nil {
		return
	}
	again := time.NewTicker(sampleEvery)
	defer again.Stop()
	for {
		p.history.add(sample{time.Now(), p.Measures()})
		select {
		case <-again.C:
		case <-p.halted.Done():
			return
		}
	}
}

// charts are what one would rather look at than read.
type charts struct {
	Throughput, Held, Closed *chart.Chart // nil: nothing to show
}

func (p *Page) charts(l Language, ops []admin.Operation) charts {
	var out charts
	if all := p.history.look(); len(all) > 1 {
		first, last := all[0], all[len(all)-1]
		perPlatform := make(map[string][]chart.Point)
		held := []chart.Point{{At: first.at, Value: float64(first.Held)}}
		for i, s := range all[1:] {
			was := all[i]
			seconds := s.at.Sub(was.at).Seconds()
			for platform, n := range s.Delivered {
				if before := was.Delivered[platform]; seconds > 0 && n >= before {
					perPlatform[platform] = append(perPlatform[platform], chart.Point{At: s.at, Value: float64(n-before) / seconds})
				}
			}
			held = append(held, chart.Point{At: s.at, Value: float64(s.Held)})
		}
		c := chart.Chart{Title: l.T("Recipients a second, by platform"), From: first.at, To: last.at}
		for _, platform := range sortedKeys(perPlatform) {
			c.Lines = append(c.Lines, chart.Line{Name: platform, Points: perPlatform[platform]})
		}
		if len(c.Lines) > 0 {
			out.Throughput = &c
		}
		out.Held = &chart.Chart{Title: l.T("Held messages on this node"), From: first.at, To: last.at, Lines: []chart.Line{{Name: l.T("held"), Points: held}}}
	}
	bars := chart.Chart{Title: l.T("Seconds closed, of the last switches"), Unit: "s"}
	for _, op := range ops {
		if op.Ended && op.Step == "done" && op.ClosedFor > 0 {
			bars.Bars = append(bars.Bars, chart.Bar{Name: op.Agency, Note: op.Started.Format("2006-01-02 15:04"), Value: op.ClosedFor})
		}
	}
	if n := len(bars.Bars); n > 0 {
		bars.Bars = bars.Bars[max(0, n-20):]
		out.Closed = &bars
	}
	return out
}
