/* Datasets written, taken up again, and read; and all that can be wrong with them. */
#include "dataset_cases.h"
int main(void){return 0;}
