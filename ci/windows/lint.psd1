# What PSScriptAnalyzer looks for: all its warnings and errors, and syntax that Windows PowerShell 5.1 lacks.
@{
    Severity     = @('Error', 'Warning')
    ExcludeRules = @(
        'PSReviewUnusedParameter'               # the verbs are switches, told apart by their parameter set
        'PSUseDeclaredVarsMoreThanAssignments'  # it does not see into Pester's blocks
    )
    Rules        = @{
        PSUseCompatibleSyntax = @{ Enable = $true; TargetVersions = @('5.1', '7.0') }
    }
}
