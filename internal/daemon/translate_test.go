package daemon

import (
	"testing"

	"mailcutover/internal/config"
	"mailcutover/mail"
)

// What is set for a platform as a whole counts for each of its endpoints.
func TestEndpointOfAPlatform(t *testing.T) {
	p := &config.Platform{ID: "ox", Size: 36 << 20, Outside: config.Endpoint{Protocol: config.ProtocolLMTP, Hosts: []string{"127.0.0.1:24"}}}
	for _, origin := range []mail.Origin{mail.OriginOutside, mail.OriginInside} {
		ep, err := endpoint(&config.Config{Node: "mx1.example"}, p, origin)
		if err != nil {
			t.Fatal(err)
		}
		if ep.MaxSize != 36<<20 || ep.Helo != "mx1.example" || ep.Origin != origin {
			t.Errorf("%s: %+v", origin, ep)
		}
	}
}
