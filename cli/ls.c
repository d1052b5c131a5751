int sap_command_ls(int argc, char **argv);
int sap_command_ls(int argc, char **argv) {
    (void)argc;
    (void)argv;
    return 0;
}
