<#
.SYNOPSIS
Sets, shows or takes back what Exchange does with the domains that mailcutover serves.

.DESCRIPTION
For Exchange Server 2016 and 2019, in the Exchange Management Shell, once for the organization. NOT RUN AGAINST A REAL
EXCHANGE: read it, adapt it, try it with -WhatIf.

There are two ways to get mail for a moved mailbox out of Exchange:

- A coexistence domain of its own (identity.coexistence pattern {local}@moved.{domain}): forwards go there, the served
  domains stay authoritative. This is the one to prefer: nothing changes for addresses that nobody has.
- Coexistence addresses in the served domain itself ({local}.tmp@{domain}): Exchange knows no such recipient, and refuses an
  address of an authoritative domain that it doesn't know. So the domain becomes an internal relay domain (-InternalRelay),
  and Exchange sends everything that it doesn't know to mailcutover, which answers for it.

.EXAMPLE
.\domains.ps1 -Action Set -Coexistence moved.health.example -WhatIf
.\domains.ps1 -Action Set -Coexistence health.example -InternalRelay
.\domains.ps1 -Action Remove -Coexistence health.example -InternalRelay
#>
[CmdletBinding(SupportsShouldProcess, ConfirmImpact = 'High')]
param(
    [Parameter(Mandatory)] [ValidateSet('Set', 'Show', 'Remove')] [string] $Action,
    [Parameter(Mandatory)] [string] $Coexistence, # the domain of the coexistence addresses
    [switch] $InternalRelay                       # it is a served domain, an accepted one of Exchange
)
$ErrorActionPreference = 'Stop'
$name = "mailcutover $Coexistence"

# Without TNEF: Outlook's rich text and meeting requests would else arrive as a winmail.dat that nobody can open. Forwards set
# by an administrator count as automatic ones, so they have to be allowed. The other side are colleagues: they get the
# out-of-office text that is meant for them, delivery reports, and refusals.
$treatment = @{
    TNEFEnabled                       = $false
    ContentType                       = 'MimeHtmlText'
    CharacterSet                      = 'utf-8'
    NonMimeCharacterSet               = 'utf-8'
    AutoForwardEnabled                = $true
    AutoReplyEnabled                  = $true
    AllowedOOFType                    = 'InternalLegacy'
    DeliveryReportEnabled             = $true
    NDREnabled                        = $true
    MeetingForwardNotificationEnabled = $true
    IsInternal                        = $true
    LineWrapSize                      = 'Unlimited'
}

switch ($Action) {
    'Set' {
        if ($InternalRelay -and $PSCmdlet.ShouldProcess($Coexistence, 'make it an internal relay domain')) {
            Set-AcceptedDomain -Identity $Coexistence -DomainType InternalRelay
        }
        if (-not (Get-RemoteDomain -Identity $name -ErrorAction SilentlyContinue) -and $PSCmdlet.ShouldProcess($name, 'make the remote domain')) {
            New-RemoteDomain -Name $name -DomainName $Coexistence | Out-Null
        }
        if ($PSCmdlet.ShouldProcess($name, 'set how mail is converted')) { Set-RemoteDomain -Identity $name @treatment }
    }
    'Show' {
        Get-RemoteDomain -Identity $name | Format-List (@('Name', 'DomainName') + @($treatment.Keys))
        if ($InternalRelay) { Get-AcceptedDomain -Identity $Coexistence | Format-List Name, DomainName, DomainType, AddressBookEnabled }
    }
    'Remove' {
        # Only when no mailbox forwards any more: forwards.ps1 -Action Show.
        if ($InternalRelay -and $PSCmdlet.ShouldProcess($Coexistence, 'make it authoritative again')) {
            Set-AcceptedDomain -Identity $Coexistence -DomainType Authoritative
        }
        if ((Get-RemoteDomain -Identity $name -ErrorAction SilentlyContinue) -and $PSCmdlet.ShouldProcess($name, 'remove the remote domain')) {
            Remove-RemoteDomain -Identity $name -Confirm:$false
        }
    }
}
