package metrics

import dto "github.com/prometheus/client_model/go"

// Delivered returns how many messages platforms have taken since the start, by platform: of a
// transaction that was passed on, one; of the spool's, one for each recipient.
func (m *Metrics) Delivered() map[string]uint64 {
	out := make(map[string]uint64)
	families, err := m.registry.Gather()
	if err != nil && len(families) == 0 {
		return out
	}
	for _, f := range families {
		switch f.GetName() {
		case deliveries.Name:
			addWhere(out, f, "class", "2yz")
		case attempts.Name:
			addWhere(out, f, "result", "delivered")
		}
	}
	return out
}

// addWhere adds a family's counters that have a label's value, by platform.
func addWhere(out map[string]uint64, f *dto.MetricFamily, label, value string) {
	for _, one := range f.GetMetric() {
		var platform string
		wanted := false
		for _, l := range one.GetLabel() {
			switch {
			case l.GetName() == "platform":
				platform = l.GetValue()
			case l.GetName() == label:
				wanted = l.GetValue() == value
			}
		}
		if wanted {
			out[platform] += uint64(one.GetCounter().GetValue())
		}
	}
}
