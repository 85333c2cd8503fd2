<#
.SYNOPSIS
Makes, shows or removes the connectors between Exchange and mailcutover.

.DESCRIPTION
For Exchange Server 2016 and 2019, in the Exchange Management Shell, for each server that takes mail. NOT RUN AGAINST A REAL
EXCHANGE: read it, set the values below to yours, try it with -WhatIf.

Receive connectors of our own, apart from those that Exchange came with, for two reasons:
- mailcutover speaks to Exchange as two different senders: for mail from the internet (outside) and for mail from people who
  logged in or from the other platform (inside). Exchange tells them apart by the connector, and so by the port.
- A switch has to wait for a message whose answer was lost for as long as Exchange may still be busy with it. Exchange's own
  limit is ten minutes; ours is two. Write the same value into the platform's connection_limit in mailcutover's configuration.

.EXAMPLE
.\connectors.ps1 -Action Set -Server EX1 -WhatIf
.\connectors.ps1 -Action Show -Server EX1
.\connectors.ps1 -Action Remove -Server EX1
#>
[CmdletBinding(SupportsShouldProcess, ConfirmImpact = 'High')]
param(
    [Parameter(Mandatory)] [ValidateSet('Set', 'Show', 'Remove')] [string] $Action,
    [Parameter(Mandatory)] [string] $Server
)
$ErrorActionPreference = 'Stop'

# ---- yours -----------------------------------------------------------------------------------------------------------
$nodes = '192.0.2.11', '192.0.2.12'                  # addresses from which mailcutover's nodes connect; nobody else's
$outsidePort = 25                                    # platforms[].outside; a narrower source than the default connector's wins
$insidePort = 2526                                   # platforms[].inside; 2525 is taken on a Mailbox server
$smartHosts = 'mx1.example.org', 'mx2.example.org'   # the nodes' listener with origin: inside
$smartHostPort = 2500
# What Exchange sends to mailcutover: the coexistence domain, and the served domains if they are internal relay domains
# (domains.ps1). Cost 1 goes before a connector for *.
$addressSpaces = 'SMTP:moved.health.example;1'
$sourceServers = $Server                             # all Mailbox servers that may send
# ----------------------------------------------------------------------------------------------------------------------

$outside, $inside, $send = 'mailcutover outside', 'mailcutover inside', 'mailcutover'

# The name of "anonymous logon" in this server's language: NT-AUTORITÄT\ANONYMOUS-ANMELDUNG where German is spoken.
$anonymous = (New-Object System.Security.Principal.SecurityIdentifier 'S-1-5-7').Translate([System.Security.Principal.NTAccount]).Value

# ConnectionTimeout is how long a connection may stay at all, even while it is busy; it has to be more than
# ConnectionInactivityTimeout. The nodes hold connections open between messages for less than either.
$limits = @{
    ConnectionTimeout             = '00:02:00'
    ConnectionInactivityTimeout   = '00:00:30'
    MaxInboundConnectionPerSource = 100       # 20 otherwise; at least platforms[].outside.limits.connections of each node, and inside
    TarpitInterval                = '00:00:00' # a refused recipient is answered at once: it isn't a stranger who asks
    ProtocolLoggingLevel          = 'Verbose'  # for the first weeks
}

function New-Ours([string] $Name, [int] $Port, [hashtable] $Trust) {
    $id = "$Server\$Name"
    if (Get-ReceiveConnector -Identity $id -ErrorAction SilentlyContinue) {
        if ($PSCmdlet.ShouldProcess($id, 'change')) { Set-ReceiveConnector -Identity $id -Bindings "0.0.0.0:$Port" -RemoteIPRanges $nodes @Trust @limits }
        return
    }
    if ($PSCmdlet.ShouldProcess($id, 'make')) {
        New-ReceiveConnector -Name $Name -Server $Server -TransportRole FrontendTransport -Custom `
            -Bindings "0.0.0.0:$Port" -RemoteIPRanges $nodes @Trust @limits | Out-Null
    }
}

switch ($Action) {
    'Set' {
        # Mail from the internet: Exchange trusts nothing of it. Groups that want authenticated senders refuse it, as they should.
        New-Ours $outside $outsidePort @{ AuthMechanism = 'Tls'; PermissionGroups = 'AnonymousUsers' }
        # Received lines have to stay: mailcutover's own among them is how a loop is seen, and how a message is found again.
        if ($PSCmdlet.ShouldProcess($outside, 'allow ms-Exch-Accept-Headers-Routing')) {
            Get-ReceiveConnector -Identity "$Server\$outside" | Add-ADPermission -User $anonymous -ExtendedRights 'ms-Exch-Accept-Headers-Routing' | Out-Null
        }
        # Mail from inside: taken as if an Exchange server had sent it (externally secured). WHOEVER CAN CONNECT FROM THE
        # ADDRESSES ABOVE TO THIS PORT CAN SEND AS ANYBODY AND TO ANYBODY: close the port to all others in the firewall too.
        New-Ours $inside $insidePort @{ AuthMechanism = 'Tls', 'ExternalAuthoritative'; PermissionGroups = 'ExchangeServers' }

        if (Get-SendConnector -Identity $send -ErrorAction SilentlyContinue) {
            if ($PSCmdlet.ShouldProcess($send, 'change')) {
                Set-SendConnector -Identity $send -AddressSpaces $addressSpaces -SmartHosts $smartHosts -Port $smartHostPort -SourceTransportServers $sourceServers
            }
        }
        elseif ($PSCmdlet.ShouldProcess($send, 'make')) {
            # -RequireTLS with -TlsAuthLevel DomainValidation and -TlsDomain, if the nodes' certificates are known to Exchange.
            New-SendConnector -Name $send -Custom -AddressSpaces $addressSpaces -DNSRoutingEnabled $false -SmartHosts $smartHosts -Port $smartHostPort `
                -SmartHostAuthMechanism None -RequireTLS $true -SourceTransportServers $sourceServers -ConnectionInactivityTimeOut '00:02:00' | Out-Null
        }
        # Without this right Exchange takes the Received lines out before it sends.
        if ($PSCmdlet.ShouldProcess($send, 'allow ms-Exch-Send-Headers-Routing')) {
            Get-SendConnector -Identity $send | Add-ADPermission -User $anonymous -ExtendedRights 'ms-Exch-Send-Headers-Routing' | Out-Null
        }
    }
    'Show' {
        foreach ($name in $outside, $inside) {
            $c = Get-ReceiveConnector -Identity "$Server\$name"
            $c | Format-List Identity, Enabled, TransportRole, Bindings, RemoteIPRanges, AuthMechanism, PermissionGroups, ConnectionTimeout, ConnectionInactivityTimeout, MaxInboundConnectionPerSource, TarpitInterval, MaxMessageSize
            $c | Get-ADPermission | Where-Object { $_.ExtendedRights -like 'ms-Exch-*' } | Format-Table User, ExtendedRights, Deny -AutoSize
        }
        $c = Get-SendConnector -Identity $send
        $c | Format-List Identity, Enabled, AddressSpaces, SmartHosts, Port, RequireTLS, SourceTransportServers, ConnectionInactivityTimeOut
        $c | Get-ADPermission | Where-Object { $_.ExtendedRights -like 'ms-Exch-Send-*' } | Format-Table User, ExtendedRights, Deny -AutoSize
    }
    'Remove' {
        # The send connector belongs to the organization: remove it with the last server. What it would have sent waits in
        # Exchange's queues, or takes another connector's way: look at Get-Queue first.
        foreach ($name in $outside, $inside) {
            $c = Get-ReceiveConnector -Identity "$Server\$name" -ErrorAction SilentlyContinue
            if ($c -and $PSCmdlet.ShouldProcess("$Server\$name", 'remove')) { Remove-ReceiveConnector -Identity "$Server\$name" -Confirm:$false }
        }
        $c = Get-SendConnector -Identity $send -ErrorAction SilentlyContinue
        if ($c -and $PSCmdlet.ShouldProcess($send, 'remove the send connector, for all servers')) { Remove-SendConnector -Identity $send -Confirm:$false }
    }
}
